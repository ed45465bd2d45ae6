//! Chooses the instruction set for elementwise loops at run time: one binary, every CPU.
//!
//! The loops are plain Rust that the compiler turns into vector code; the same source is compiled
//! once per instruction set. Nothing is reordered or contracted on the way, so that every choice
//! gives the same bits.

/// Runs `work` compiled for the best instruction set that this CPU has.
///
/// `work` must be an `#[inline(always)]` closure, and so must be every function that it calls in
/// its inner loops; anything else is compiled for the baseline.
#[inline]
pub(crate) fn dispatch<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
        {
            // SAFETY: the CPU has the features, as was just asked.
            return unsafe { with_avx512(work) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the CPU has the features, as was just asked.
            return unsafe { with_avx2(work) };
        }
    }
    work()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
fn with_avx512<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2<R>(work: impl FnOnce() -> R) -> R {
    work()
}
