// What the nodes of this library need from PyTorch's autograd.
//
// The nodes are written by hand and registered at the Autograd key, as in PyTorch's generated code,
// since torch::autograd::Function refuses all functorch transforms.
#pragma once

#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <algorithm>
#include <memory>
#include <type_traits>
#include <utility>

namespace spgrad {

using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

// Nodes are held by std::shared_ptr up to PyTorch 2.12 and by c10::intrusive_ptr from 2.13 on.
template <class NodeType>
using NodePointer = std::conditional_t<
    std::is_same_v<decltype(torch::autograd::Edge::function), std::shared_ptr<Node>>,
    std::shared_ptr<NodeType>, c10::intrusive_ptr<NodeType>>;

template <class NodeType, class... Arguments>
NodePointer<NodeType> make_node(Arguments&&... arguments) {
  if constexpr (std::is_same_v<NodePointer<NodeType>, std::shared_ptr<NodeType>>) {
    return std::make_shared<NodeType>(std::forward<Arguments>(arguments)...);
  } else {
    return c10::make_intrusive<NodeType>(std::forward<Arguments>(arguments)...);
  }
}

// Whether a hook of this type is on a node. The caller holds the lock under which it is added.
template <class Hook>
bool has_pre_hook(const Node& node) {
  return std::ranges::any_of(node.pre_hooks(), [](const auto& hook) {
    return dynamic_cast<const Hook*>(hook.get()) != nullptr;
  });
}

// Whether a tensor has a tangent of forward mode. PyTorch's own function takes a lock of the tensor
// each time, which stays taken in a child that was forked meanwhile.
inline bool has_tangent(const at::Tensor& tensor) {
  const auto* const meta = torch::autograd::impl::get_autograd_meta(tensor);
  return meta != nullptr && meta->fw_grad_ != nullptr && torch::autograd::isFwGradDefined(tensor);
}

}  // namespace spgrad
