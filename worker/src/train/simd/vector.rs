//! Vectors of numbers by name, for the few loops of which the compiler makes none of its own.

use std::ops::{Add, Mul, Range, Sub};

use candle_core::DType;

use super::Vectors;
use crate::train::element::Element;

/// A loop over numbers that lie side by side, written for vectors of any length.
pub(crate) trait VectorLoop<T> {
    /// Works on the numbers from `at` on that fill a vector.
    ///
    /// # Safety
    ///
    /// They must exist, and the conditions of `V` hold.
    unsafe fn step<V: Vector<T>>(&mut self, at: usize);
}

/// Runs a loop over `count` numbers, with the longest vectors that the code is compiled for. To be called
/// under [`super::dispatch_by`].
///
/// # Safety
///
/// The loop's pointers must have so many numbers.
#[inline(always)]
pub(crate) unsafe fn run<T: Element>(vectors: Vectors, count: usize, work: &mut impl VectorLoop<T>) {
    // SAFETY: promised by the caller; vectors of a register are taken for f32 alone, if the CPU has them.
    unsafe {
        let whole = match (vectors, T::DTYPE) {
            #[cfg(target_arch = "x86_64")]
            (Vectors::Avx512, DType::F32) => steps::<T, x86::Wide>(0..count, work),
            #[cfg(target_arch = "x86_64")]
            (Vectors::Avx2, DType::F32) => steps::<T, x86::Narrow>(0..count, work),
            _ => 0,
        };
        steps::<T, One<T>>(whole..count, work);
    }
}

/// Steps through a range as far as whole vectors go; how far that is.
#[inline(always)]
unsafe fn steps<T, V: Vector<T>>(range: Range<usize>, work: &mut impl VectorLoop<T>) -> usize {
    let mut at = range.start;
    // A plain loop: the compiler does not always see through an iterator here.
    while at + V::LENGTH <= range.end {
        // SAFETY: promised by the caller.
        unsafe { work.step::<V>(at) };
        at += V::LENGTH;
    }
    at
}

/// Numbers side by side in a register.
pub(crate) trait Vector<T>:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<f64, Output = Self>
{
    /// How many there are.
    const LENGTH: usize;

    /// # Safety
    ///
    /// So many numbers must lie there. For vectors of a register, they must be f32, and the CPU must have it.
    unsafe fn load(from: *const T) -> Self;

    /// The same number at every place.
    ///
    /// # Safety
    ///
    /// For vectors of a register, the CPU must have it.
    unsafe fn all(number: f64) -> Self;

    /// # Safety
    ///
    /// There must be room for so many numbers of the type that was loaded.
    unsafe fn store(self, to: *mut T);

    /// Where a number of `other` is larger, or NaN, that and its mark; elsewhere this and its own.
    fn larger(self, mark: Self, other: Self, others: Self) -> (Self, Self);
}

/// One number.
#[derive(Clone, Copy)]
pub(crate) struct One<T>(T);

impl<T: Element> Vector<T> for One<T> {
    const LENGTH: usize = 1;

    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: promised by the caller.
        Self(unsafe { *from })
    }

    #[inline(always)]
    unsafe fn all(number: f64) -> Self {
        Self(T::from_f64(number))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: promised by the caller.
        unsafe { *to = self.0 }
    }

    #[inline(always)]
    fn larger(self, mark: Self, other: Self, others: Self) -> (Self, Self) {
        // The second half is true for NaN alone.
        #[allow(clippy::eq_op)]
        let wins = other.0 > self.0 || other.0 != other.0;
        if wins { (other, others) } else { (self, mark) }
    }
}

impl<T: Element> Add for One<T> {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl<T: Element> Sub for One<T> {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl<T: Element> Mul<f64> for One<T> {
    type Output = Self;

    #[inline(always)]
    fn mul(self, factor: f64) -> Self {
        Self(self.0 * T::from_f64(factor))
    }
}

/// Vectors of f32 in registers. A value of such a type exists only where the CPU has the register: whoever
/// makes one, with [`Vector::load`] or [`Vector::all`], promises that.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _CMP_GT_OQ, _CMP_UNORD_Q, _mm256_add_ps, _mm256_blendv_ps, _mm256_cmp_ps,
        _mm256_loadu_ps, _mm256_mul_ps, _mm256_or_ps, _mm256_set1_ps, _mm256_storeu_ps, _mm256_sub_ps,
        _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_loadu_ps, _mm512_mask_blend_ps, _mm512_mul_ps,
        _mm512_set1_ps, _mm512_storeu_ps, _mm512_sub_ps,
    };
    use std::ops::{Add, Mul, Sub};

    use super::Vector;

    macro_rules! vector {
        (
            $name:ident($register:ident, $length:literal), $load:ident, $store:ident, $all:ident,
            $add:ident, $sub:ident, $mul:ident,
            larger: |$this:ident, $mark:ident, $other:ident, $others:ident| $larger:expr
        ) => {
            #[derive(Clone, Copy)]
            pub(crate) struct $name($register);

            impl<T> Vector<T> for $name {
                const LENGTH: usize = $length;

                #[inline(always)]
                unsafe fn load(from: *const T) -> Self {
                    // SAFETY: promised by the caller.
                    Self(unsafe { $load(from.cast()) })
                }

                #[inline(always)]
                unsafe fn all(number: f64) -> Self {
                    // SAFETY: promised by the caller.
                    Self(unsafe { $all(number as f32) })
                }

                #[inline(always)]
                unsafe fn store(self, to: *mut T) {
                    // SAFETY: promised by the caller.
                    unsafe { $store(to.cast(), self.0) }
                }

                #[inline(always)]
                fn larger(self, mark: Self, other: Self, others: Self) -> (Self, Self) {
                    let ($this, $mark, $other, $others) = (self.0, mark.0, other.0, others.0);
                    // SAFETY: the CPU has the register.
                    let (larger, marks) = unsafe { $larger };
                    (Self(larger), Self(marks))
                }
            }

            impl Add for $name {
                type Output = Self;

                #[inline(always)]
                fn add(self, other: Self) -> Self {
                    // SAFETY: the CPU has the register.
                    Self(unsafe { $add(self.0, other.0) })
                }
            }

            impl Sub for $name {
                type Output = Self;

                #[inline(always)]
                fn sub(self, other: Self) -> Self {
                    // SAFETY: the CPU has the register.
                    Self(unsafe { $sub(self.0, other.0) })
                }
            }

            impl Mul<f64> for $name {
                type Output = Self;

                #[inline(always)]
                fn mul(self, factor: f64) -> Self {
                    // SAFETY: the CPU has the register.
                    Self(unsafe { $mul(self.0, $all(factor as f32)) })
                }
            }
        };
    }

    vector!(
        Wide(__m512, 16), _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps,
        _mm512_add_ps, _mm512_sub_ps, _mm512_mul_ps,
        larger: |this, mark, other, others| {
            let wins = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(other, this)
                | _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(other, other);
            (_mm512_mask_blend_ps(wins, this, other), _mm512_mask_blend_ps(wins, mark, others))
        }
    );

    vector!(
        Narrow(__m256, 8), _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps,
        _mm256_add_ps, _mm256_sub_ps, _mm256_mul_ps,
        larger: |this, mark, other, others| {
            let wins = _mm256_or_ps(
                _mm256_cmp_ps::<_CMP_GT_OQ>(other, this),
                _mm256_cmp_ps::<_CMP_UNORD_Q>(other, other),
            );
            (_mm256_blendv_ps(this, other, wins), _mm256_blendv_ps(mark, others, wins))
        }
    );
}
