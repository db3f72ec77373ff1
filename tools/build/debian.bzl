"""Libraries from Debian's packages, as targets of the repository @debian.

Headers lie in the compiler's own search path, so a target carries only the
macros and linker options that pkg-config names (or, where a package has no .pc
file, the ones listed here). tools/setup lists the packages.
"""

# Target name -> names pkg-config knows.
_PKG_CONFIG = {
    "absl_status": ["absl_status", "absl_statusor", "absl_cord"],
    "absl_strings": ["absl_strings", "absl_str_format"],
    "crypto": ["libcrypto"],
    "icu": ["icu-uc"],
    "json": ["nlohmann_json"],
    "gmock": ["gmock"],
    "gtest": ["gtest"],
    "protobuf": ["protobuf"],
    "spdlog": ["spdlog"],
    "sqlite": ["sqlite3"],
    "yaml_cpp": ["yaml-cpp"],
}

# Target name -> linker options, for what has no .pc file (or a misleading one).
_PLAIN = {
    "absl_containers": ["-labsl_raw_hash_set", "-labsl_hash", "-labsl_city", "-labsl_low_level_hash", "-labsl_throw_delegate"],
    "asio": ["-pthread"],
    "boost_headers": [],
    "cli11": [],
    "grpcpp": ["-lgrpc++", "-lgrpc", "-lgpr", "-lprotobuf", "-labsl_synchronization", "-pthread"],
    "grpcpp_reflection": ["-Wl,--no-as-needed", "-lgrpc++_reflection", "-Wl,--as-needed"],
    "gtest_main": ["-lgtest_main", "-lgtest", "-pthread"],
}

# Target name -> macros its users must see.
_DEFINES = {
    # Errors come back as codes and Asio's deprecated names stay out.
    "asio": ["BOOST_ASIO_NO_DEPRECATED", "BOOST_ERROR_CODE_HEADER_ONLY"],
}

def _pkg_config(ctx, flag, packages):
    result = ctx.execute(["pkg-config", flag] + packages)
    if result.return_code != 0:
        fail("pkg-config %s %s: %s\nRun tools/setup to install what is missing." %
             (flag, " ".join(packages), result.stderr))
    return [option for option in result.stdout.strip().split(" ") if option]

def _unique(options):
    # Later duplicates add nothing for shared libraries; order is kept for the
    # push-state/pop-state pairs, which are left alone.
    seen = {}
    kept = []
    for option in options:
        if option.startswith("-l") and option in seen:
            continue
        seen[option] = True
        kept.append(option)
    return kept

def _library(name, defines, linkopts):
    return """
cc_library(
    name = "{name}",
    defines = {defines},
    linkopts = {linkopts},
)
""".format(name = name, defines = repr(defines), linkopts = repr(linkopts))

def _debian_libraries_impl(ctx):
    text = "package(default_visibility = [\"//visibility:public\"])\n"
    for name, packages in _PKG_CONFIG.items():
        defines = [
            option[2:]
            for option in _pkg_config(ctx, "--cflags", packages)
            if option.startswith("-D")
        ]
        text += _library(name, defines, _unique(_pkg_config(ctx, "--libs", packages)))
    for name, linkopts in _PLAIN.items():
        text += _library(name, _DEFINES.get(name, []), linkopts)
    ctx.file("BUILD", text)

debian_libraries = repository_rule(
    implementation = _debian_libraries_impl,
    doc = "Makes one cc_library for each library the project takes from Debian.",
    local = True,
)
