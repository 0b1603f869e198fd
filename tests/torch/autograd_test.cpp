// The three products on plain tensors and the way each derives into the others.
#include <gmock/gmock.h>

#include <array>
#include <functional>

#include "operators.h"

namespace spgrad::test {
namespace {

using testing::HasSubstr;

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

TYPED_TEST(ProductsTest, AreThoseOfTheDenseMatrices) {
  this->for_each_product([](const auto& slots, size_t output) {
    EXPECT_TRUE(close(slots.sparse_product(output), slots.dense_product(output)));
  });
}

TYPED_TEST(ProductsTest, DeriveIntoEachOther) {
  this->for_each_product([](const auto& slots, size_t output) {
    const at::Tensor ours = slots.sparse_product(output);
    const at::Tensor dense = slots.dense_product(output);
    const at::Tensor cotangent = at::randn_like(dense);
    const auto actual = torch::autograd::grad({ours}, slots.inputs(output), {cotangent});
    const auto expected = torch::autograd::grad({dense}, slots.inputs(output), {cotangent});
    for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(close(actual[i], expected[i])) << "input " << i;
  });
}

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

TYPED_TEST(ProductsTest, HaveNoHistoryWhereNothingNeedsOne) {
  this->for_each_product([](const auto& slots, size_t output) {
    const at::NoGradGuard no_grad;
    EXPECT_FALSE(slots.sparse_product(output).requires_grad());
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

TYPED_TEST(ProductsTest, GiveTheShapesOfTensorsWithoutData) {
  const typename TestFixture::Slots slots(Sizes{.batched = true});
  const at::NoGradGuard no_grad;
  auto meta = slots;
  for (at::Tensor& leaf : meta.leaves) leaf = leaf.to(at::kMeta);
  if constexpr (std::is_same_v<TypeParam, CsrOperators>) {
    meta.ours.crow = meta.ours.crow.to(at::kMeta);
    meta.ours.col = meta.ours.col.to(at::kMeta);
  } else {
    meta.ours.indices = meta.ours.indices.to(at::kMeta);
  }
  for (size_t output = 0; output < 3; ++output) {
    EXPECT_EQ(meta.sparse_product(output).sizes(), slots.sparse_product(output).sizes());
  }
  const auto [grad_values, grad_Y] =
      meta.ours.mm_backward(meta.leaves[0], meta.leaves[2], meta.leaves[1]);
  EXPECT_EQ(grad_values.sizes(), meta.leaves[0].sizes());
  EXPECT_EQ(grad_Y.sizes(), meta.leaves[2].sizes());
}

TYPED_TEST(ProductsTest, NameOperandsOfWrongShape) {
  const Sizes sizes;
  const typename TestFixture::Slots slots(sizes);
  const auto& ours = slots.ours;
  const at::Tensor& values = slots.leaves[0];
  const at::Tensor& X = slots.leaves[1];
  const at::Tensor& Y = slots.leaves[2];
  const at::NoGradGuard no_grad;
  const at::Tensor wrong = at::ones({4, 5}, at::kDouble);
  const at::Tensor narrow_X = X.slice(1, 0, 2);
  EXPECT_THAT(error_of<c10::ValueError>([&] { ours.sddmm(wrong, Y); }),
              HasSubstr("X must have 7 rows, but received shape [4, 5]"));
  EXPECT_EQ(error_of<c10::ValueError>([&] { ours.sddmm(narrow_X, Y); }),
            "X and Y must have the same number of columns, but received shapes [7, 2] and [9, 5]");
  EXPECT_EQ(error_of<c10::ValueError>([&] { ours.mm_transposed(values, wrong); }),
            "B must have 7 rows, but received shape [4, 5]");
  EXPECT_EQ(error_of<c10::ValueError>([&] { ours.mm_backward(values, Y, wrong); }),
            "grad must have 7 rows, but received shape [4, 5]");
  EXPECT_EQ(error_of<c10::ValueError>([&] { ours.mm_backward(values, Y, narrow_X); }),
            "grad and B must have the same number of columns, but received shapes [7, 2] and "
            "[9, 5]");
  EXPECT_EQ(error_of<c10::ValueError>([&] { ours.mm(values, Y[0]); }),
            "B must have at least 2 dimensions for a sparse matrix, but received shape [5]");
  EXPECT_EQ(error_of<c10::ValueError>([&] { ours.mm(values.slice(0, 1), Y); }),
            "values must have one element for each entry, shape [12] behind any leading "
            "dimensions, but received [11]");
  EXPECT_EQ(error_of<c10::Error>([&] { ours.mm(values.to(at::kFloat), Y); }),
            "values and B must have the same dtype, but received Float and Double");
  EXPECT_EQ(
      error_of<c10::Error>([&] { ours.mm(values.to(at::kInt), Y.to(at::kInt)); }),
      "values and B must be float32, float64, float16, bfloat16, complex64 or complex128, but "
      "received Int");
  EXPECT_EQ(error_of<c10::ValueError>([&] { ours.mm(values, Y.to_sparse()); }),
            "B must be a dense (strided) tensor, but received layout Sparse");
  EXPECT_EQ(error_of<c10::ValueError>([&] { ours.sddmm(X.to_sparse_csr(), Y); }),
            "X must be a dense (strided) tensor, but received layout SparseCsr");
}

}  // namespace
}  // namespace spgrad::test
