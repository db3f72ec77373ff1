"""cc_library, cc_binary and cc_test with the project's warnings."""

_COPTS = [
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wshadow",
    "-Wnon-virtual-dtor",
    "-Woverloaded-virtual",
    "-Wconversion",
    "-Wno-sign-conversion",
]

def vmbfs_cc_library(name, copts = [], **kwargs):
    native.cc_library(name = name, copts = _COPTS + copts, **kwargs)

def vmbfs_cc_binary(name, copts = [], **kwargs):
    native.cc_binary(name = name, copts = _COPTS + copts, **kwargs)

def vmbfs_cc_test(name, copts = [], deps = [], size = "small", **kwargs):
    native.cc_test(
        name = name,
        size = size,
        copts = _COPTS + copts,
        # Linked statically with our own code: one binary a test, quick to start
        # and free of ordering surprises under sanitizers.
        linkstatic = True,
        deps = deps + ["@debian//:gmock", "@debian//:gtest_main"],
        **kwargs
    )

def vmbfs_fuzz_target(name, srcs, deps = [], size = "small"):
    """A fuzzer, and the replay of its corpus as an ordinary test.

    `name` is the fuzzer; it links with clang's libFuzzer only, so it builds with
    --config=fuzz and is left out of wildcards (tools/fuzz runs it). `name`_replay
    gives every file of tests/corpus/`name` to the same code with any compiler.

    Args:
      name: of the fuzzer and of its corpus folder.
      srcs: files that define LLVMFuzzerTestOneInput.
      deps: what they use.
      size: of the replay.
    """
    native.cc_binary(
        name = name,
        testonly = True,
        srcs = srcs,
        copts = _COPTS,
        linkopts = ["-fsanitize=fuzzer"],
        linkstatic = True,
        tags = ["fuzzer", "manual"],
        deps = deps,
    )
    native.cc_test(
        name = name + "_replay",
        size = size,
        srcs = srcs,
        args = ["tests/corpus/" + name],
        copts = _COPTS,
        data = ["//tests/corpus:" + name],
        linkstatic = True,
        deps = deps + ["//tools/build:corpus_replay"],
    )
