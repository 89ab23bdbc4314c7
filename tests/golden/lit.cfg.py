import os

import lit.formats

config.name = "qcompile-golden"
config.suffixes = [".qir"]
config.test_format = lit.formats.ShTest(execute_external=False)
config.test_exec_root = os.environ["QC_TEST_OUT"]
config.environment["PATH"] = os.pathsep.join([os.environ["QC_BIN"], os.environ["QC_LLVM_TOOLS"], os.environ["PATH"]])
config.substitutions.append(("%opt", "qcompile opt"))
