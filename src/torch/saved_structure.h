// A structure in a node of the graph.
#pragma once

#include <array>
#include <tuple>

#include "node.h"
#include "structure.h"

namespace spgrad {

// A structure kept for the backward pass. A change of its tensors in place is found out.
template <class Structure>
class SavedStructure {
 public:
  void save(const Structure& structure) {
    shape_ = structure;
    const auto tensors = shape_.tensors();
    for (size_t i = 0; i < saved_.size(); ++i) {
      saved_[i] = SavedVariable(*tensors[i], false);
      tensors[i]->reset();
    }
  }
  Structure unpack() const {
    Structure structure = shape_;
    const auto tensors = structure.tensors();
    for (size_t i = 0; i < saved_.size(); ++i) *tensors[i] = saved_[i].unpack();
    return structure;
  }
  void release() {
    for (SavedVariable& saved : saved_) saved.reset_data();
  }

 private:
  Structure shape_;  // the structure without its tensors
  std::array<SavedVariable, std::tuple_size_v<decltype(shape_.tensors())>> saved_;
};

}  // namespace spgrad
