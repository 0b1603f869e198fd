// The registration of a backend (CPU, shapes only, gradients, vmap, autocast): a class with an
// overload of `run` for each operation, as a template over the structure:
//
//     template <class Structure>
//     static at::Tensor run(Mm, c10::DispatchKeySet keys, const Structure& structure,
//                           const at::Tensor& values, const at::Tensor& B);
//
// `keys` are those of the dispatch under way, for backends that pass it on.
#pragma once

#include <torch/library.h>

#include "operators.h"

namespace spgrad {

template <class Backend, class Operation, class... Structure>
void register_operation(torch::Library& m, Types<Structure...>) {
  (Operator<Structure, Operation>::add(m, Operator<Structure, Operation>::template run<Backend>),
   ...);
}

template <class Backend>
void register_products(torch::Library& m) {
  register_operation<Backend, Mm>(m, Structures());
  register_operation<Backend, MmTransposed>(m, Structures());
  register_operation<Backend, Sddmm>(m, Structures());
  register_operation<Backend, MmBackward>(m, Structures());
}

// For backends that have extrema.
template <class Backend>
void register_extrema(torch::Library& m) {
  register_operation<Backend, MmExtremum>(m, Structures());
  register_operation<Backend, SelectedMm>(m, Structures());
  register_operation<Backend, SelectedMmTransposed>(m, Structures());
  register_operation<Backend, SelectedSddmm>(m, Structures());
}

// For devices, and what holds on all of them: products into tensors that are given.
template <class Backend>
void register_into(torch::Library& m) {
  register_operation<Backend, MmInto>(m, Types<PatternStructure>());
  register_operation<Backend, SddmmInto>(m, Types<PatternStructure>());
  register_operation<Backend, MmBackwardInto>(m, Types<PatternStructure>());
}

// For backends that make patterns too.
template <class Backend>
void register_pattern(torch::Library& m) {
  register_operation<Backend, MakePattern>(m, Types<CsrStructure, CooStructure>());
}

// For backends that solve least-squares problems.
template <class Backend>
void register_pinv(torch::Library& m) {
  register_operation<Backend, PinvMm>(m, Types<PatternStructure>());
}

// For devices, which also have the solve that the gradient takes.
template <class Backend>
void register_pinv_of_device(torch::Library& m) {
  register_pinv<Backend>(m);
  register_operation<Backend, PinvWithMultipliers>(m, Types<PatternStructure>());
}

// For backends that tell the indices of patterns.
template <class Backend>
void register_indices(torch::Library& m) {
  register_operation<Backend, Indices>(m, Types<PatternStructure>());
}

}  // namespace spgrad
