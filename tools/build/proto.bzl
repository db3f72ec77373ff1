"""C++ from .proto files, by Debian's protoc and gRPC plugin."""

_SYSTEM_PROTOS = ["/usr/include", "/usr/share/grpc-proto"]

def vmbfs_cc_proto_library(name, srcs, grpc = False, deps = [], import_root = "proto", **kwargs):
    """Generates and compiles C++ for `srcs`.

    Args:
      name: of the cc_library; headers are included by their path below
        `import_root`, as protoc's own imports are.
      srcs: .proto files of this package.
      grpc: whether services get gRPC stubs too.
      deps: other vmbfs_cc_proto_library targets whose files these import.
      import_root: the folder, from the top of the tree, that imports start at.
      **kwargs: passed to the cc_library.
    """
    stems = [src[:-len(".proto")] for src in srcs]
    headers = [stem + ".pb.h" for stem in stems]
    sources = [stem + ".pb.cc" for stem in stems]
    plugin = ""
    if grpc:
        headers += [stem + ".grpc.pb.h" for stem in stems]
        sources += [stem + ".grpc.pb.cc" for stem in stems]
        plugin = "--plugin=protoc-gen-grpc=/usr/bin/grpc_cpp_plugin --grpc_out=$(GENDIR)/" + import_root
    native.filegroup(
        name = name + "_protos",
        srcs = srcs + [dep + "_protos" for dep in deps],
        visibility = kwargs.get("visibility"),
    )
    native.genrule(
        name = name + "_gen",
        srcs = srcs + [":" + name + "_protos"],
        outs = headers + sources,
        cmd = " ".join([
            "/usr/bin/protoc",
            "-I" + import_root,
            " ".join(["-I" + path for path in _SYSTEM_PROTOS]),
            "--cpp_out=$(GENDIR)/" + import_root,
            plugin,
            " ".join(["$(location %s)" % src for src in srcs]),
        ]),
        message = "Generating C++ for " + name,
    )
    root = import_root
    native.cc_library(
        name = name,
        srcs = sources,
        hdrs = headers,
        # Generated code: our warnings do not apply to it.
        copts = ["-w"],
        strip_include_prefix = "/" + root,
        deps = deps + ["@debian//:protobuf"] + (["@debian//:grpcpp"] if grpc else []),
        **kwargs
    )

def debian_cc_proto_library(name, proto, grpc = False, compiled_in = None, **kwargs):
    """Generates and compiles C++ for one file of Debian's package grpc-proto.

    Args:
      name: of the cc_library; the header is included by the file's own path.
      proto: the file, below /usr/share/grpc-proto.
      grpc: whether services get gRPC stubs too.
      compiled_in: the library that has the file's code already, where there is
        one: then only the headers are made (a program must not have it twice).
      **kwargs: passed to the cc_library.
    """
    stem = proto[:-len(".proto")]
    headers = [stem + ".pb.h"]
    sources = [stem + ".pb.cc"]
    plugin = ""
    if grpc:
        headers.append(stem + ".grpc.pb.h")
        sources.append(stem + ".grpc.pb.cc")
        plugin = "--plugin=protoc-gen-grpc=/usr/bin/grpc_cpp_plugin --grpc_out=$(RULEDIR)"
    native.genrule(
        name = name + "_gen",
        outs = headers + sources,
        cmd = " ".join([
            "/usr/bin/protoc",
            " ".join(["-I" + path for path in _SYSTEM_PROTOS]),
            "--cpp_out=$(RULEDIR)",
            plugin,
            proto,
        ]),
        message = "Generating C++ for " + name,
    )
    native.cc_library(
        name = name,
        srcs = [] if compiled_in else sources,
        hdrs = headers,
        # Generated code: our warnings do not apply to it.
        copts = ["-w"],
        strip_include_prefix = "/" + native.package_name(),
        deps = ["@debian//:protobuf"] + (["@debian//:grpcpp"] if grpc else []) +
               ([compiled_in] if compiled_in else []),
        **kwargs
    )
