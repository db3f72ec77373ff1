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
