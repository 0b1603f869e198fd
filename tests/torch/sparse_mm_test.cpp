#include "spgrad/sparse_mm.h"

#include <gmock/gmock.h>

#include <functional>
#include <thread>
#include <vector>

#include "node.h"
#include "reference.h"

namespace spgrad::test {
namespace {

using testing::HasSubstr;

// All kinds of sparse tensors.
class SparseMmOf : public testing::TestWithParam<std::tuple<Form, bool, at::ScalarType>> {
 protected:
  void SetUp() override {
    at::manual_seed(1);
    sizes.batched = std::get<1>(GetParam());
    A = random_sparse(std::get<0>(GetParam()), sizes, dtype()).requires_grad_();
    B = at::randn(sizes.B(), dtype()).requires_grad_();
    G = at::randn(sizes.C(), dtype());
  }
  static at::ScalarType dtype() { return std::get<2>(GetParam()); }

  // G Bᵀ at the entries, and Aᵀ G.
  at::Tensor expected_gradient_of_values() const {
    return at_entries(G.to(at::kDouble).matmul(B.detach().to(at::kDouble).mT()), A);
  }
  // What the gradient of A stands for: where PyTorch adds up several, it may coalesce them.
  at::Tensor expected_dense_gradient_of_A() const {
    return coo(coordinates_of(A), expected_gradient_of_values().flatten(), A.sizes()).to_dense();
  }
  at::Tensor expected_gradient_of_B() const { return dense(A).mT().matmul(G.to(at::kDouble)); }

  // Those of this many passes in one graph; forgets them.
  void expect_gradients(int passes = 1) {
    ASSERT_TRUE(has_pattern_of(A.grad(), A));
    EXPECT_TRUE(close(specified(A.grad()), passes * expected_gradient_of_values()));
    EXPECT_TRUE(close(B.grad(), passes * expected_gradient_of_B()));
    A.mutable_grad().reset();
    B.mutable_grad().reset();
  }

  Sizes sizes;
  at::Tensor A, B, G;
};

TEST_P(SparseMmOf, GivesTheProductAndGradientsAsLongAsTheGraphIsKept) {
  const at::Tensor C = sparse_mm(A, B);
  EXPECT_TRUE(close(C, dense(A).matmul(B.to(at::kDouble))));
  EXPECT_TRUE(C.is_contiguous());
  EXPECT_EQ(C.scalar_type(), dtype());
  EXPECT_TRUE(C.requires_grad());
  for (const bool keep_graph : {true, false}) {
    C.backward(G, keep_graph);
    expect_gradients();
  }
  EXPECT_THAT(error_of<c10::Error>([&] { C.backward(G); }), HasSubstr("a second time"));
}

TEST_P(SparseMmOf, GivesTheGradientOfOneAlone) {
  sparse_mm(A, B.detach()).backward(G);
  ASSERT_TRUE(has_pattern_of(A.grad(), A));
  EXPECT_TRUE(close(specified(A.grad()), expected_gradient_of_values()));
  EXPECT_FALSE(B.grad().defined());
  A.mutable_grad().reset();
  sparse_mm(A.detach(), B).backward(G);
  EXPECT_TRUE(close(B.grad(), expected_gradient_of_B()));
  EXPECT_FALSE(A.grad().defined());
  EXPECT_FALSE(sparse_mm(A.detach(), B.detach()).requires_grad());
}

TEST_P(SparseMmOf, AddsUpGradientsOfSeveralPasses) {
  sparse_mm(A, B).backward(G);
  sparse_mm(A, B).backward(G);
  EXPECT_TRUE(close(A.grad().to_dense(), 2 * expected_dense_gradient_of_A()));
  EXPECT_TRUE(close(B.grad(), 2 * expected_gradient_of_B()));
}

TEST_P(SparseMmOf, AddsUpGradientsOfSeveralUsesInOneGraph) {
  (sparse_mm(A, B) + 2 * sparse_mm(A, B)).backward(G);
  expect_gradients(3);
}

// A node that calls a function when PyTorch tears down the graph that it belongs to.
struct Teardown : torch::autograd::Node {
  torch::autograd::variable_list apply(torch::autograd::variable_list&&) override { return {}; }
  void release_variables() override { during(); }
  std::function<void()> during = [] {};
};

// Another thread may multiply by the same leaf while PyTorch takes the nodes of a graph apart:
// after it has seen that nobody else holds a node, and before it takes away that node's edges. It
// takes them from the last one to the first.
TEST_P(SparseMmOf, GivesGradientsWhereAnotherGraphIsTornDownMeanwhile) {
  using torch::autograd::Edge;
  at::Tensor C;
  {
    auto last = make_node<Teardown>();
    last->during = [&] { C = sparse_mm(A, B); };
    const auto root = make_node<Teardown>();
    root->set_next_edges({sparse_mm(A, B).grad_fn()->next_edge(0), Edge(std::move(last), 0)});
  }
  ASSERT_TRUE(C.defined());
  C.backward(G);
  expect_gradients();
}

// Graphs of one leaf that are made, run backward or dropped at the same time.
TEST_P(SparseMmOf, AddsUpGradientsOfPassesAtTheSameTime) {
  constexpr int kThreads = 4;
  constexpr int kPasses = 20;
  std::vector<std::thread> threads;
  for (int number = 0; number < kThreads; ++number) {
    threads.emplace_back([this] {
      for (int pass = 0; pass < kPasses; ++pass) {
        sparse_mm(A, B);  // dropped
        sparse_mm(A, B).backward(G);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(close(A.grad().to_dense(), kThreads * kPasses * expected_dense_gradient_of_A()));
  EXPECT_TRUE(close(B.grad(), kThreads * kPasses * expected_gradient_of_B()));
}

TEST_P(SparseMmOf, TakesExpandedGradients) {
  sparse_mm(A, B).sum().backward();
  G = at::ones(sizes.C(), dtype());
  expect_gradients();
}

TEST_P(SparseMmOf, TakesDenseOperandsWithAnyStrides) {
  const at::Tensor given = B.detach();
  for (const at::Tensor& other :
       {given.mT().contiguous().mT(), at::stack({given, given}, -1).select(-1, 0)}) {
    B = other.requires_grad_();
    const at::Tensor C = sparse_mm(A, B);
    EXPECT_TRUE(close(C, dense(A).matmul(given.to(at::kDouble))));
    C.backward(G.mT().contiguous().mT());
    expect_gradients();
  }
  const at::Tensor same_rows = at::randn({sizes.p}, dtype()).expand(sizes.B());
  EXPECT_TRUE(close(sparse_mm(A, same_rows), dense(A).matmul(same_rows.to(at::kDouble))));
}

TEST_P(SparseMmOf, DerivesTwice) {
  const at::Tensor C = sparse_mm(A, B);
  const at::Tensor g = G.clone().requires_grad_();
  const auto gradients = torch::autograd::grad({C}, {B}, {g}, true, true);
  // dB = Aᵀ g is linear in g and in the values.
  const at::Tensor H = at::randn(sizes.B(), dtype());
  (gradients[0] * H).sum().backward();
  EXPECT_TRUE(close(g.grad(), dense(A).matmul(H.to(at::kDouble))));
  EXPECT_TRUE(
      close(specified(A.grad()), at_entries(G.to(at::kDouble).matmul(H.to(at::kDouble).mT()), A)));
}

std::string name_of(const testing::TestParamInfo<SparseMmOf::ParamType>& info) {
  constexpr const char* forms[] = {"Csr32",     "Csr64",       "Coalesced",
                                   "SortedCoo", "UnsortedCoo", "RepeatedCoo"};
  const auto [form, batched, dtype] = info.param;
  return std::string(batched ? "Batched" : "") + forms[static_cast<int>(form)] +
         (dtype == at::kFloat ? "Float" : "Double");
}

INSTANTIATE_TEST_SUITE_P(AllKinds, SparseMmOf,
                         testing::Combine(testing::Values(Form::csr32, Form::csr64, Form::coalesced,
                                                          Form::sorted, Form::unsorted,
                                                          Form::repeated),
                                          testing::Bool(),
                                          testing::Values(at::kFloat, at::kDouble)),
                         name_of);

TEST(SparseMm, TakesEmptySizes) {
  for (const bool batched : {false, true}) {
    for (const auto& [n, m, p] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
             {0, 3, 2}, {3, 0, 2}, {3, 4, 0}, {0, 0, 0}}) {
      const Sizes sizes{.batched = batched, .b = 2, .n = n, .m = m, .p = p};
      const at::Tensor zeros = at::zeros(sizes.A());
      for (const at::Tensor& A : {zeros.to_sparse(), zeros.to_sparse_csr()}) {
        const at::Tensor leaf = A.detach().requires_grad_();
        const at::Tensor B = at::ones(sizes.B()).requires_grad_();
        const at::Tensor C = sparse_mm(leaf, B);
        EXPECT_TRUE(at::equal(C, at::zeros(sizes.C())));
        C.sum().backward();
        EXPECT_TRUE(has_pattern_of(leaf.grad(), A));
        EXPECT_TRUE(at::equal(B.grad(), at::zeros(sizes.B())));
      }
    }
  }
  const Sizes none{.batched = true, .b = 0};
  EXPECT_EQ(sparse_mm(at::zeros(none.A()).to_sparse(), at::ones(none.B())).sizes(),
            at::IntArrayRef(none.C()));
}

TEST_P(SparseMmOf, IsThatOfAPatternWithTheValues) {
  const Pattern pattern(A);
  EXPECT_EQ(pattern.size(), A.sizes());
  const at::Tensor values =
      specified(A).detach().clone().view(pattern.values_size()).requires_grad_();
  const at::Tensor C = pattern.mm(values, B);
  EXPECT_TRUE(close(C, dense(A).matmul(B.to(at::kDouble))));
  C.backward(G);
  EXPECT_EQ(values.grad().sizes(), pattern.values_size());
  EXPECT_TRUE(close(values.grad(), expected_gradient_of_values()));
  EXPECT_TRUE(close(B.grad(), expected_gradient_of_B()));
}

TEST_P(SparseMmOf, SamplesTheProductOfDenseMatrices) {
  const at::Tensor X = G.clone().requires_grad_();
  const at::Tensor C = sddmm(A.detach(), X, B);
  ASSERT_TRUE(has_pattern_of(C, A));
  EXPECT_TRUE(close(specified(C.detach()), expected_gradient_of_values()));
  const bool is_coo = A.layout() == at::kSparse;
  const at::Tensor values = is_coo ? coo_sddmm(A._indices(), A.sym_sizes(), X, B)
                                   : csr_sddmm(A.crow_indices(), A.col_indices(), X, B);
  EXPECT_TRUE(at::equal(values, specified(C.detach())));
  sparse_mm(C, B.detach()).sum().backward();
  EXPECT_EQ(X.grad().sizes(), X.sizes());
  EXPECT_EQ(B.grad().sizes(), B.sizes());
}

TEST_P(SparseMmOf, HasAPatternOfPlainTensorsThatCanBeTransposed) {
  const bool is_coo = A.layout() == at::kSparse;
  const Pattern pattern = is_coo ? Pattern::from_coo(A._indices(), A.sizes())
                                 : Pattern::from_csr(A.crow_indices(), A.col_indices(), A.sizes());
  const Pattern transposed = pattern.transposed();
  EXPECT_EQ(pattern.size(), A.sizes());
  EXPECT_EQ(transposed.size(), A.transpose(-2, -1).sizes());
  EXPECT_TRUE(at::equal(pattern.indices(), coordinates_of(A)));
  const at::Tensor values = specified(A).detach().view(pattern.values_size());
  EXPECT_TRUE(close(pattern.mm(values, B), dense(A).matmul(B.to(at::kDouble))));
  for (const at::Tensor& product : {pattern.mm_transposed(values, G), transposed.mm(values, G)}) {
    EXPECT_TRUE(close(product, expected_gradient_of_B()));
  }
  EXPECT_TRUE(close(pattern.sddmm(G, B), expected_gradient_of_values()));
  EXPECT_TRUE(at::equal(transposed.sddmm(B, G), pattern.sddmm(G, B)));
}

TEST(Pattern, RefusesOffsetsOfAnotherSize) {
  EXPECT_THAT([] { Pattern::from_csr(longs({0, 1}), longs({0}), {2, 3}); },
              testing::ThrowsMessage<c10::ValueError>(
                  HasSubstr("crow_indices must have shape [3] for size [2, 3], but received [2]")));
}

TEST(Pattern, RefusesValuesOfAnotherSize) {
  const Pattern pattern(at::eye(3).to_sparse_csr());
  EXPECT_THAT([&] { pattern.mm(at::ones({2}), at::ones({3, 1})); },
              testing::ThrowsMessage<c10::ValueError>(HasSubstr(
                  "values must have shape [3] behind any leading dimensions, but received [2]")));
}

TEST(Pattern, TakesVectorsAndLeadingDimensions) {
  const Pattern pattern(at::stack({at::eye(2), at::eye(2)}).to_sparse_csr());
  const at::Tensor values = at::arange(12.0).view({3, 2, 2});
  const at::Tensor C = pattern.mm(values, at::ones({2, 2, 1}));
  EXPECT_TRUE(at::equal(C.squeeze(-1), values));
  EXPECT_TRUE(at::equal(pattern.mm_transposed(values, at::ones({2, 2, 1})), C));
  EXPECT_EQ(pattern.sddmm(at::ones({3, 2, 2, 4}), at::ones({2, 2, 4})).sizes(), values.sizes());
  EXPECT_TRUE(
      at::equal(Pattern(at::eye(2).to_sparse()).mm(at::ones({2}), at::ones({2})), at::ones({2})));
}

TEST(Matmul, TakesEitherSideAndBatches) {
  const at::Tensor dense = at::arange(6.0).view({2, 3});
  const at::Tensor X = at::arange(24.0).view({4, 3, 2});
  for (const at::Tensor& A : {dense.to_sparse(), dense.to_sparse_csr(), dense.to_sparse_csc()}) {
    at::Tensor leaf = A.detach().requires_grad_();
    const at::Tensor C = spgrad::matmul(leaf, X);
    EXPECT_TRUE(at::equal(C, at::matmul(dense, X)));
    EXPECT_TRUE(at::equal(spgrad::matmul(X, A), at::matmul(X, dense)));
    C.sum().backward();
    EXPECT_EQ(leaf.grad().layout(), A.layout());
  }
  EXPECT_THAT([&] { spgrad::matmul(dense.to_sparse(), dense.t().to_sparse()); },
              testing::ThrowsMessage<c10::ValueError>(HasSubstr("one of A and B must be dense")));
}

TEST(CsrSoftmax, IsThatOfTheEntriesOfEachRowOrColumn) {
  const at::Tensor crow = longs({0, 2, 3});
  const at::Tensor col = longs({0, 1, 1});
  const at::Tensor values = at::zeros({3});
  EXPECT_TRUE(at::equal(csr_softmax(crow, col, values, {2, 2}), at::tensor({0.5, 0.5, 1.0})));
  EXPECT_TRUE(at::equal(csr_softmax(crow, col, values, {2, 2}, -2), at::tensor({1.0, 0.5, 0.5})));
}

TEST(CsrMmWithColumns, WantsAsManyRowsOfB) {
  const at::Tensor A = at::eye(3).to_sparse_csr();
  const auto multiply = [&](int64_t columns) {
    return csr_mm(A.crow_indices(), A.col_indices(), A.values(), at::ones({3, 2}), columns);
  };
  EXPECT_TRUE(multiply(3).eq(1).all().item<bool>());
  EXPECT_THAT([&] { multiply(4); }, testing::ThrowsMessage<c10::ValueError>(HasSubstr(
                                        "B must have 4 rows, as many as there are columns, but "
                                        "received shape [3, 2]")));
}

}  // namespace
}  // namespace spgrad::test
