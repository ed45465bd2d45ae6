//! Chooses the instruction set for elementwise loops at run time: one binary, every CPU.
//!
//! The loops are plain Rust that the compiler turns into vector code; the same source is compiled
//! once per instruction set. Nothing is reordered or contracted on the way, so that every choice
//! gives the same bits.

mod vector;

#[cfg(test)]
pub(crate) use self::vector::One;
pub(crate) use self::vector::{Vector, VectorLoop, run};

/// The instruction sets that loops are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vectors {
    /// What every CPU of this architecture has.
    Baseline,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, VL, BW and DQ.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// The best instruction set that this CPU has.
#[inline]
pub(crate) fn vectors() -> Vectors {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
    {
        return Vectors::Avx512;
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        return Vectors::Avx2;
    }
    Vectors::Baseline
}

/// Runs `work` compiled for the best instruction set that this CPU has.
///
/// `work` must be an `#[inline(always)]` closure, and so must be every function that it calls in
/// its inner loops; anything else is compiled for the baseline.
#[inline]
pub(crate) fn dispatch<R>(work: impl FnOnce() -> R) -> R {
    dispatch_by(
        #[inline(always)]
        |_| work(),
    )
}

/// [`dispatch`], for work that has to know for what it is compiled: to the compiler a constant.
#[inline]
pub(crate) fn dispatch_by<R>(work: impl FnOnce(Vectors) -> R) -> R {
    match vectors() {
        // SAFETY: the CPU has the features.
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx512 => unsafe { with_avx512(work) },
        // SAFETY: likewise.
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx2 => unsafe { with_avx2(work) },
        Vectors::Baseline => work(Vectors::Baseline),
    }
}

/// How far ahead of a loop over much memory to ask for what comes, in bytes. A page: what CPUs foresee by themselves ends
/// with each, and without vectors that are loaded in part.
pub(crate) const AHEAD: usize = 4096;

/// Asks for what lies so many bytes after these to be brought into the cache, be it there or not, and waits for nothing.
#[inline(always)]
pub(crate) fn prefetch_from<T>(these: &[T], bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of_val(these)).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let place = these.as_ptr().cast::<i8>().wrapping_add(bytes + line);
        // SAFETY: every x86-64 CPU has the instruction, which may be given any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (these, bytes);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
fn with_avx512<R>(work: impl FnOnce(Vectors) -> R) -> R {
    work(Vectors::Avx512)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2<R>(work: impl FnOnce(Vectors) -> R) -> R {
    work(Vectors::Avx2)
}
