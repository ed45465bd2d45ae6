//! Compiles the messages in `proto/` with protox, so that no protoc has to be installed.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let files = ["search", "trial", "event", "worker", "artifact", "operator", "snapshot"]
        .map(|name| root.join("fittingroom/v1").join(name).with_extension("proto"));
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(&files, [&root])?;
    tonic_prost_build::configure()
        .bytes(".fittingroom.v1.Chunk")
        .bytes(".fittingroom.v1.CheckpointChunk")
        .bytes(".fittingroom.v1.BackupResponse")
        .compile_fds(descriptors)?;
    Ok(())
}
