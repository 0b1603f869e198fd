/// The instruction sets for which the kernels are built, and the choice among them.
///
/// Every kernel exists once in source and several times in machine code. The best set that the CPU
/// supports is chosen at the first call; the environment variable SPGRAD_INSTRUCTION_SET or
/// use_instruction_set() choose another one, for tests and comparisons.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace spgrad {

/// Names of the instruction sets that this build contains and this CPU supports, best first.
///
///     for (const std::string& name : spgrad::instruction_sets()) std::puts(name.c_str());
///
/// Returns at least one name; the last is "baseline", which every CPU of the architecture has
/// (SSE2 on x86-64, NEON on AArch64). The others are "avx512" and "avx2" (with FMA).
std::vector<std::string> instruction_sets();

/// Name of the instruction set that the kernels use from now on.
///
///     std::string name = spgrad::instruction_set();   // "avx2"
///
/// Throws std::invalid_argument where SPGRAD_INSTRUCTION_SET is set to a name that
/// instruction_sets() does not list.
std::string instruction_set();

/// Makes all kernels in this process use the instruction set `name` from the next call on.
///
///     spgrad::use_instruction_set("baseline");
///
/// Throws std::invalid_argument, naming the choices, where instruction_sets() does not list `name`.
/// Results for different instruction sets may differ in the last bits.
void use_instruction_set(std::string_view name);

}  // namespace spgrad
