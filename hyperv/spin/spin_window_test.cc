#include "hyperv/spin/spin_window.h"

#include <gtest/gtest.h>

#include <chrono>

namespace vmbfs::hyperv {
namespace {

using std::chrono::microseconds;

constexpr microseconds kLongest{80};

// Requests served until one is followed by a look.
uint32_t RequestsUntilLook(SpinWindow& window) {
  uint32_t requests = 1;
  while (window.Begin(kLongest) == microseconds{0}) ++requests;
  return requests;
}

// Looks in vain until none follows a request.
void WearOut(SpinWindow& window) {
  while (window.Begin(kLongest) > microseconds{0}) window.InVain();
}

TEST(SpinWindow, ANewChannelIsLookedAtForTheWholeWindow) {
  SpinWindow window;
  EXPECT_EQ(window.Begin(kLongest), kLongest);
}

TEST(SpinWindow, EachLookInVainHalvesTheWindowAndTheFourthEndsIt) {
  SpinWindow window;
  for (const int us : {80, 40, 20, 10}) {
    EXPECT_EQ(window.Begin(kLongest), microseconds{us});
    window.InVain();
  }
  EXPECT_EQ(window.Begin(kLongest), microseconds{0});
}

TEST(SpinWindow, ALookThatFindsDoublesTheWindowUpToTheLongest) {
  SpinWindow window;
  window.InVain();
  window.InVain();
  for (const int us : {20, 40, 80, 80}) {
    EXPECT_EQ(window.Begin(kLongest), microseconds{us});
    window.Found();
  }
}

TEST(SpinWindow, ProbesInVainGetRareAndNoRarerThanTheirInterval) {
  SpinWindow window;
  WearOut(window);
  EXPECT_EQ(RequestsUntilLook(window), 1u);  // WearOut's last request was the first one
  window.InVain();
  for (const uint32_t passed : {2u, 4u, 8u, 16u, 32u, 64u, 128u, 256u, 256u, 256u}) {
    EXPECT_EQ(RequestsUntilLook(window), passed + 1);
    window.InVain();
  }
}

TEST(SpinWindow, AProbeIsOfTheWholeWindowAndOneThatFindsGivesItBack) {
  SpinWindow window;
  WearOut(window);
  EXPECT_EQ(window.Begin(kLongest), kLongest);
  window.Found();
  EXPECT_EQ(window.Begin(kLongest), kLongest);
  window.InVain();
  EXPECT_EQ(window.Begin(kLongest), kLongest / 2);
}

TEST(SpinWindow, AFoundRequestForgetsTheProbesInVain) {
  SpinWindow window;
  WearOut(window);
  for (int probes = 0; probes < 6; ++probes) {
    RequestsUntilLook(window);
    window.InVain();
  }
  RequestsUntilLook(window);
  window.Found();
  WearOut(window);
  EXPECT_EQ(RequestsUntilLook(window), 1u);
}

TEST(SpinWindow, ALookCutShortChangesNothing) {
  SpinWindow window;
  window.InVain();
  for (int i = 0; i < 10; ++i) EXPECT_EQ(window.Begin(kLongest), kLongest / 2);
}

}  // namespace
}  // namespace vmbfs::hyperv
