// The three products on plain tensors and the way each derives into the others.

#include <array>
#include <functional>

#include "operators.h"

namespace spgrad::test {
namespace {

template <class Operators>
class ProductsTest : public Seeded {
 protected:
  // values, X and Y of T(v, X, Y), and the three products of two of them, ours and by dense
  // matrices that autograd derives.
  struct Slots {
    explicit Slots(const Sizes& sizes_)
        : sizes(sizes_),
          indices(coordinates(sizes_)),
          ours(Operators::of(indices, sizes)),
          leaves{random(ours.values_size()), random(sizes.of(sizes.n, sizes.p)),
                 random(sizes.of(sizes.m, sizes.p))} {}

    static at::Tensor random(at::IntArrayRef size) {
      return at::randn(size, at::kDouble).requires_grad_();
    }

    at::Tensor sparse_product(size_t output) const {
      const auto& [values, X, Y] = leaves;
      if (output == 0) return ours.sddmm(X, Y);
      return output == 1 ? ours.mm(values, Y) : ours.mm_transposed(values, X);
    }

    at::Tensor dense_product(size_t output) const {
      const auto& [values, X, Y] = leaves;
      c10::List<std::optional<at::Tensor>> places;
      for (const at::Tensor& index : indices.unbind(0)) places.push_back(index);
      if (output == 0) return X.matmul(Y.mT()).index(places).view(ours.values_size());
      const at::Tensor A =
          at::zeros(sizes.A(), at::kDouble).index_put(places, values.flatten(), true);
      return output == 1 ? A.matmul(Y) : A.mT().matmul(X);
    }

    // The two leaves that the product uses.
    std::vector<at::Tensor> inputs(size_t output) const {
      std::vector<at::Tensor> result;
      for (size_t i = 0; i < 3; ++i) {
        if (i != output) result.push_back(leaves[i]);
      }
      return result;
    }

    Sizes sizes;
    at::Tensor indices;
    Operators ours;
    std::array<at::Tensor, 3> leaves;
  };

  static void for_each_product(const std::function<void(const Slots&, size_t)>& test) {
    for (const bool batched : {false, true}) {
      const Slots slots(Sizes{.batched = batched});
      for (size_t output = 0; output < 3; ++output) {
        SCOPED_TRACE(std::string(batched ? "batched, " : "") + "output " + std::to_string(output));
        test(slots, output);
      }
    }
  }
};
using Forms = testing::Types<CsrOperators, CooOperators>;
TYPED_TEST_SUITE(ProductsTest, Forms);

TYPED_TEST(ProductsTest, DeriveForOneInputAlone) {
  this->for_each_product([](const auto& slots, size_t output) {
    const at::Tensor ours = slots.sparse_product(output);
    const at::Tensor dense = slots.dense_product(output);
    const at::Tensor cotangent = at::randn_like(dense);
    for (const at::Tensor& input : slots.inputs(output)) {
      const auto actual = torch::autograd::grad({ours}, {input}, {cotangent}, true);
      const auto expected = torch::autograd::grad({dense}, {input}, {cotangent}, true);
      EXPECT_TRUE(close(actual[0], expected[0]));
    }
  });
}

TYPED_TEST(ProductsTest, DeriveTwice) {
  this->for_each_product([](const auto& slots, size_t output) {
    const std::vector<at::Tensor> inputs = slots.inputs(output);
    std::array<std::vector<at::Tensor>, 2> second;
    const at::Tensor cotangent = at::randn_like(slots.dense_product(output)).requires_grad_();
    const at::Tensor weights[] = {at::randn_like(inputs[0]), at::randn_like(inputs[1])};
    for (const bool ours : {true, false}) {
      const at::Tensor product = ours ? slots.sparse_product(output) : slots.dense_product(output);
      const auto first = torch::autograd::grad({product}, inputs, {cotangent}, true, true);
      const at::Tensor sum = (first[0] * weights[0]).sum() + (first[1] * weights[1]).sum();
      second[ours] = torch::autograd::grad({sum}, {inputs[0], inputs[1], cotangent});
    }
    for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(close(second[1][i], second[0][i])) << "input " << i;
  });
}

TYPED_TEST(ProductsTest, KeepOnlyWhatTheGradientNeeds) {
  this->for_each_product([](const auto& slots, size_t output) {
    const std::vector<at::Tensor> leaves = slots.inputs(output);
    for (const size_t wanted : {size_t{0}, size_t{1}}) {
      // Inputs that nobody but the product may hold, one of which needs a gradient.
      std::vector<c10::weak_intrusive_ptr<c10::StorageImpl>> memory;
      at::Tensor product;
      {
        auto alone = slots;
        for (size_t i = 0; i < 3; ++i) {
          if (i == output) continue;
          const at::Tensor& leaf = leaves[memory.size()];
          alone.leaves[i] = (memory.size() == wanted ? leaf : leaf.detach()) + 1;
          memory.emplace_back(c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(
              alone.leaves[i].storage().unsafeGetStorageImpl()));
        }
        product = alone.sparse_product(output);
      }
      EXPECT_TRUE(memory[wanted].expired()) << "kept for a gradient that is not needed";
      EXPECT_FALSE(memory[1 - wanted].expired());
      product.sum().backward();
      EXPECT_TRUE(memory[1 - wanted].expired()) << "kept after the gradient was there";
    }
  });
}

TYPED_TEST(ProductsTest, GiveBothGradientsInOnePass) {
  for (const bool batched : {false, true}) {
    const typename TestFixture::Slots slots(Sizes{.batched = batched});
    const auto& [values, X, Y] = slots.leaves;
    const at::NoGradGuard no_grad;
    const auto [grad_values, grad_Y] = slots.ours.mm_backward(values, Y, X);
    EXPECT_TRUE(close(grad_values, slots.dense_product(0)));
    EXPECT_TRUE(close(grad_Y, slots.dense_product(2)));
  }
}

}  // namespace
}  // namespace spgrad::test
