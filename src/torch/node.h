// What every gradient of this library needs from PyTorch's autograd.
//
// The nodes are written by hand and registered at the Autograd key, as PyTorch's own generated code
// does it: torch::autograd::Function refuses all functorch transforms.
#pragma once

#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <memory>
#include <type_traits>
#include <utility>

namespace spgrad {

using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

// Nodes are held by std::shared_ptr up to PyTorch 2.12 and by c10::intrusive_ptr from 2.13 on.
template <class NodeType>
struct SharedNodePointer {
  using Strong = std::shared_ptr<NodeType>;
  using Weak = std::weak_ptr<NodeType>;
  static Strong make() { return std::make_shared<NodeType>(); }
};
template <class NodeType>
struct IntrusiveNodePointer {
  using Strong = c10::intrusive_ptr<NodeType>;
  using Weak = c10::weak_intrusive_ptr<NodeType>;
  static Strong make() { return c10::make_intrusive<NodeType>(); }
};
template <class NodeType>
using NodePointer = std::conditional_t<
    std::is_same_v<decltype(torch::autograd::Edge::function), std::shared_ptr<Node>>,
    SharedNodePointer<NodeType>, IntrusiveNodePointer<NodeType>>;

}  // namespace spgrad
