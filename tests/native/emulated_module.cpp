// csrc/bindings_cuda.cpp over the emulation, as the Python module _emulated: CPU addresses, stream 0.

#include <pybind11/pybind11.h>

#include "binding_views.h"
#include "cuda_runtime.h"

PYBIND11_MODULE(_emulated, module) {
    rate::bind_cuda(module);
    module.def("pretend", [](int multiprocessors, int shared_limit) {
        emulation::multiprocessors = multiprocessors;
        emulation::shared_limit = shared_limit;
    });
}
