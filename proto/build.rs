//! Generates the types and services of `proto/`, without a protoc on the machine.

use std::path::Path;

const FILES: [&str; 21] = [
    "auth.proto",
    "caps.proto",
    "content.proto",
    "control.proto",
    "errdefs.proto",
    "exporter.proto",
    "filesync.proto",
    "gateway.proto",
    "google/rpc/status.proto",
    "kiln.proto",
    "ops.proto",
    "policy.proto",
    "policysession.proto",
    "secrets.proto",
    "ssh.proto",
    "stack.proto",
    "stat.proto",
    "trace.proto",
    "upload.proto",
    "wire.proto",
    "worker.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, [Path::new("proto")])?;
    tonic_prost_build::configure()
        // Packets and blobs are handed on without a copy.
        .bytes(".")
        // A vertex is named by the digest of its marshalled op, so maps have one order.
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .include_file("wire.rs")
        .compile_fds(descriptors)?;
    tonic_build::manual::Builder::new().compile(&[file_send()]);
    Ok(())
}

/// `FileSend.DiffCopy` carries one of two kinds of message, so its messages stay bytes.
fn file_send() -> tonic_build::manual::Service {
    let diff_copy = tonic_build::manual::Method::builder()
        .name("diff_copy")
        .route_name("DiffCopy")
        .input_type("bytes::Bytes")
        .output_type("bytes::Bytes")
        .codec_path("crate::file_send::RawCodec")
        .client_streaming()
        .server_streaming()
        .build();
    tonic_build::manual::Service::builder()
        .package("moby.filesync.v1")
        .name("FileSend")
        .method(diff_copy)
        .build()
}
