// SPDX-License-Identifier: GPL-2.0
//! The core in memory of this program.

use core::ptr::NonNull;

use hmm_devmem::region::{self, Region};

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line(#[allow(dead_code)] [u8; region::ALIGN]);

/// A region and its memory.
pub struct Lent(Box<[Line]>);

impl Lent {
    /// A region of `npages`, all free.
    pub fn new(npages: u64) -> Lent {
        let size = region::size(npages, 1);
        let mut lines =
            vec![Line([0; region::ALIGN]); size.div_ceil(region::ALIGN)].into_boxed_slice();
        // SAFETY: `size` bytes that are the region's alone and stay where they are.
        let region = unsafe { Region::init(NonNull::from(&mut *lines).cast(), size, npages, 1) };
        assert!(region.is_ok(), "{npages} pages are no region");
        Lent(lines)
    }

    /// A view of it.
    pub fn region(&self) -> Region<'_> {
        // SAFETY: new() made it, and it is borrowed as long as the view.
        let region = unsafe { Region::at(self.0.as_ptr().cast()) };
        region.expect("new() made a region")
    }
}
