//! Compiles the kernels for NVIDIA GPUs, where the feature `cuda` asks for them.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    kernels::compile();
}

#[cfg(feature = "cuda")]
mod kernels {
    use std::env;
    use std::path::PathBuf;

    use cudaforge::{KernelBuilder, Result};

    /// To PTX, which the driver takes to what the GPU speaks: `kernels.rs` has each file's text as a constant.
    pub(super) fn compile() {
        if let Err(error) = try_compile() {
            panic!(
                "the kernels cannot be compiled: {error}. The feature `cuda` needs NVIDIA's compiler, nvcc"
            );
        }
    }

    fn try_compile() -> Result<()> {
        const SOURCES: &str = "src/train/cuda/kernels";
        println!("cargo::rerun-if-changed={SOURCES}");
        let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
        // Cargo knows when to build again; the builder would overlook a change to what files include.
        let compiled = KernelBuilder::new()
            .source_dir(SOURCES)
            .no_incremental()
            .arg("-std=c++17")
            .arg("-O3")
            .build_ptx()?;
        compiled.write(out.join("kernels.rs"))
    }
}
