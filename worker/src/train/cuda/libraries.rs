//! NVIDIA's libraries, loaded when a GPU is first asked for and not when the program starts: so a program
//! that was built for GPUs also runs where there is no driver.
//!
//! candle asks the linker for these libraries, and the system would look for them before anything else. But
//! the linker finds the functions that are called here, each a jump to where [`load`] found the real one, and
//! leaves out libraries of which it needs none (GNU's does in release builds alone: in others it counts functions
//! that it removes afterwards). `deploy/check-cuda` fails if one is called that is missing below.

use std::ffi::c_void;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use candle_core::cuda_backend::cudarc::driver::sys::CUDA_VERSION;
use libloading::Library;

/// A function's name, and where it is once its library is loaded.
type Function = (&'static str, &'static AtomicPtr<c_void>);

/// Defines functions that jump to those of a library, whatever their arguments are, and lists them. They are
/// hidden, for the libraries also call one another.
macro_rules! functions {
    ($library:ident: $($name:ident)+) => {
        $(
            #[allow(non_snake_case, reason = "as the library has it")]
            mod $name {
                use super::*;

                pub(super) static ADDRESS: AtomicPtr<c_void> = AtomicPtr::new(not_loaded as *mut c_void);

                #[unsafe(naked)]
                #[unsafe(no_mangle)]
                extern "C" fn $name() {
                    #[cfg(target_arch = "x86_64")]
                    std::arch::naked_asm!(
                        concat!(".hidden ", stringify!($name)),
                        "jmp qword ptr [rip + {}]",
                        sym ADDRESS
                    );
                    #[cfg(target_arch = "aarch64")]
                    std::arch::naked_asm!(
                        concat!(".hidden ", stringify!($name)),
                        "adrp x16, {0}",
                        "ldr x16, [x16, :lo12:{0}]",
                        "br x16",
                        sym ADDRESS
                    );
                }
            }
        )+

        static $library: &[Function] = &[$((stringify!($name), &$name::ADDRESS)),+];
    };
}

functions! { DRIVER:
    cuCtxDestroy_v2 cuCtxGetCurrent cuCtxSetCurrent cuDeviceGet cuDeviceGetAttribute cuDeviceGetDefaultMemPool
    cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxRetain cuEventCreate cuEventDestroy_v2 cuEventRecord
    cuGetErrorString cuInit cuLaunchKernel cuMemAllocAsync cuMemAlloc_v2 cuMemFreeAsync cuMemFree_v2
    cuMemGetInfo_v2 cuMemPoolGetAttribute cuMemPoolSetAttribute cuMemcpyDtoDAsync_v2 cuMemcpyDtoHAsync_v2
    cuMemcpyHtoDAsync_v2 cuMemcpyPeerAsync cuMemsetD8Async cuModuleGetFunction cuModuleLoad cuModuleLoadData
    cuModuleUnload cuStreamDestroy_v2 cuStreamIsCapturing cuStreamSynchronize cuStreamWaitEvent
}

functions! { CUBLAS:
    cublasCreate_v2 cublasDestroy_v2 cublasDgemmStridedBatched cublasGemmStridedBatchedEx cublasSetStream_v2
    cublasSgemmStridedBatched cublasSgemm_v2
}

functions! { CURAND:
    curandCreateGenerator curandDestroyGenerator curandSetPseudoRandomGeneratorSeed curandSetStream
}

/// Loads the libraries, once for the whole process. No GPU may be asked for before.
///
/// # Errors
/// Which library is missing, or too old.
pub(crate) fn load() -> Result<(), &'static str> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        let cuda = CUDA_VERSION / 1000;
        find("NVIDIA's driver", "libcuda.so.1", DRIVER)?;
        find("cuBLAS", &format!("libcublas.so.{cuda}"), CUBLAS)?;
        find("cuRAND", "libcurand.so.10", CURAND)
    });
    loaded.as_ref().copied().map_err(String::as_str)
}

fn find(what: &str, file: &str, functions: &[Function]) -> Result<(), String> {
    // SAFETY: these libraries may be loaded at any time, by any thread: their own users do.
    let library = unsafe { Library::new(file) }.map_err(|error| match error {
        libloading::Error::DlOpen { source } => format!("{what} cannot be loaded ({source})"),
        other => format!("{what} cannot be loaded ({file}: {other})"),
    })?;
    for (name, address) in functions {
        // SAFETY: the address is called by those alone who know the function's type, by its name.
        let found = unsafe { library.get::<*mut c_void>(*name) }
            .map_err(|_| format!("{what} is too old: {file} has no {name}"))?;
        address.store(*found, Ordering::Release);
    }
    // Its functions may be called as long as the process lives.
    std::mem::forget(library);
    Ok(())
}

/// In place of a function until it is found.
extern "C" fn not_loaded() -> ! {
    unreachable!("NVIDIA's libraries are loaded before a GPU is asked for")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told() {
        static ADDRESS: AtomicPtr<c_void> = AtomicPtr::new(not_loaded as *mut c_void);
        let missing = find("it", "libnone.so.1", &[]).expect_err("there is no such library");
        assert!(missing.starts_with("it cannot be loaded (libnone.so.1: "), "{missing}");
        let functions: &[Function] = &[("exit", &ADDRESS), ("none", &ADDRESS)];
        let old = find("it", "libc.so.6", functions).expect_err("there is no such function");
        assert_eq!(old, "it is too old: libc.so.6 has no none");
    }
}
