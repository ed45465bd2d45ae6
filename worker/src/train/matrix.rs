//! Matrix products on one thread: every multiplication of weights and activations on the CPU.
//!
//! The `gemm` crate picks its kernels by the CPU at run time. For given sizes it adds in one fixed
//! order, so that a product has the same bits every time on the same kind of CPU.

use std::sync::Once;

use gemm::Parallelism;

use super::element::{Element, append};

/// Sizes that no matrix has, in the units of `gemm`'s thresholds.
const NEVER: usize = usize::MAX >> 16;
/// Columns of a product that are worked on at a time, so that of the right matrix no more than so many have to stay in the
/// cache while all of the left one goes by: a gradient of weights is up to a tenth faster, other products are within 2 % of what they were.
const PANEL: usize = 128;
/// Taken before the first product.
static READS_IN_PLACE: Once = Once::new();

/// A matrix in memory: row-major, or the transpose of one.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    numbers: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// The row-major matrix that fills `numbers`.
    pub(crate) fn new(numbers: &'a [T], rows: usize, columns: usize) -> Self {
        assert_eq!(numbers.len(), rows * columns, "{rows} rows of {columns}");
        Self { numbers, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// What it was made of.
    pub(crate) fn numbers(&self) -> &'a [T] {
        self.numbers
    }

    /// Its transpose; nothing moves.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// What becomes of the numbers that a product is written over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// They are replaced.
    Replace,
    /// The product is added to them.
    Add,
}

/// `out = left · right`, or `out += left · right`, on the calling thread. `out` is row-major.
pub(crate) fn multiply<T: Element>(out: &mut [T], write: Write, left: Matrix<'_, T>, right: Matrix<'_, T>) {
    assert_eq!(left.columns, right.rows, "the inner sizes of a product");
    assert_eq!(out.len(), left.rows * right.columns, "the size of a product");
    // SAFETY: `out` was just checked, and it is borrowed mutably, so that it overlaps neither matrix.
    unsafe { multiply_to(out.as_mut_ptr(), write, left, right) }
}

/// Appends `left · right`, row-major. Nothing is filled with zeros first.
pub(crate) fn append_product<T: Element>(out: &mut Vec<T>, left: Matrix<'_, T>, right: Matrix<'_, T>) {
    assert_eq!(left.columns, right.rows, "the inner sizes of a product");
    let count = left.rows * right.columns;
    if left.columns == 0 {
        out.resize(out.len() + count, T::zero());
        return;
    }
    // SAFETY: there is room for the product, which no matrix overlaps; one that has inner columns and
    // replaces writes every number without reading any.
    unsafe {
        append(out, count, |room| multiply_to(room.as_mut_ptr().cast(), Write::Replace, left, right));
    }
}

/// # Safety
///
/// `out` must have room for `left.rows * right.columns` numbers, and not overlap the matrices. If the
/// product is to be added, they must be numbers already.
unsafe fn multiply_to<T: Element>(out: *mut T, write: Write, left: Matrix<'_, T>, right: Matrix<'_, T>) {
    // What the kernels can read where it lies is not copied before: at the sizes that are trained here the copies cost
    // more (3 % of a step of `fcn`) than they save, but for layers of some thousand units. The bits are the same.
    READS_IN_PLACE.call_once(|| {
        gemm::set_lhs_packing_threshold_single_thread(NEVER);
        gemm::set_rhs_packing_threshold(NEVER);
    });
    for first in (0..right.columns).step_by(PANEL) {
        // SAFETY: both matrices were checked to lie within their slices when they were made; the rest is
        // promised by the caller.
        unsafe {
            gemm::gemm(
                left.rows,
                PANEL.min(right.columns - first),
                left.columns,
                out.add(first),
                1,
                right.columns as isize,
                write == Write::Add,
                left.numbers.as_ptr(),
                left.column_stride as isize,
                left.row_stride as isize,
                right.numbers.as_ptr().add(first * right.column_stride),
                right.column_stride as isize,
                right.row_stride as isize,
                T::one(),
                T::one(),
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }
}
