// The public C++ API in one header: load, calibrate, quantize, compile, run.  README.md has an example.
#pragma once

#include "frontend/data/dataset.h"
#include "frontend/data/npy.h"
#include "quantizer/rules/qconfig.h"
#include "runtime/executable.h"
#include "runtime/model.h"
#include "runtime/workflow/quantize.h"
