// Letter case as Windows sees it in names of files and of registry keys.
//
// Thread safety: any thread; no state.

#pragma once

#include <string_view>

namespace vmbfs {

// The simple upper-case form of a UTF-16 unit, where the simple lower-case form
// of that leads back; the unit itself otherwise. Surrogates have no case of
// their own. (shared/specs/imc.md 2.3, "Case table")
char16_t UpperCaseUnit(char16_t unit);

// Compares names unit by unit, by their upper-case forms: negative, 0 or
// positive. Does not allocate.
int CompareNames(std::u16string_view a, std::u16string_view b);

}  // namespace vmbfs
