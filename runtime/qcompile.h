// The public C++ API in one header: load, calibrate, quantize, compile, run.  README.md has an example.
#pragma once

#include "frontend/dataset.h"
#include "frontend/npy.h"
#include "quantizer/qconfig.h"
#include "runtime/executable.h"
#include "runtime/model.h"
#include "runtime/quantize.h"
