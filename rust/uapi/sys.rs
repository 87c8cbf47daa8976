// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note
// GENERATED from c/drivers/dmirror/hmm_dmirror.h by `make gen`; not to be edited.

pub const HMM_DMIRROR_FLAG_FAIL_ALLOC: u32 = 1;
pub type __s32 = ::core::ffi::c_int;
pub type __u32 = ::core::ffi::c_uint;
pub type __u64 = ::core::ffi::c_ulonglong;
/// struct hmm_dmirror_cmd - argument of the calls shared with the test driver
/// @addr: (in) user address the device works on, page aligned
/// @ptr: (in) user buffer: device data for READ and MIGRATE_TO_DEV is stored
///     here, WRITE takes it from here, SNAPSHOT stores one byte per page
/// @npages: (in) number of pages
/// @cpages: (out) pages done
/// @faults: (out) device page faults taken
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct hmm_dmirror_cmd {
    pub addr: __u64,
    pub ptr: __u64,
    pub npages: __u64,
    pub cpages: __u64,
    pub faults: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hmm_dmirror_cmd"][::core::mem::size_of::<hmm_dmirror_cmd>() - 40usize];
    ["Alignment of hmm_dmirror_cmd"][::core::mem::align_of::<hmm_dmirror_cmd>() - 8usize];
    ["Offset of field: hmm_dmirror_cmd::addr"]
        [::core::mem::offset_of!(hmm_dmirror_cmd, addr) - 0usize];
    ["Offset of field: hmm_dmirror_cmd::ptr"]
        [::core::mem::offset_of!(hmm_dmirror_cmd, ptr) - 8usize];
    ["Offset of field: hmm_dmirror_cmd::npages"]
        [::core::mem::offset_of!(hmm_dmirror_cmd, npages) - 16usize];
    ["Offset of field: hmm_dmirror_cmd::cpages"]
        [::core::mem::offset_of!(hmm_dmirror_cmd, cpages) - 24usize];
    ["Offset of field: hmm_dmirror_cmd::faults"]
        [::core::mem::offset_of!(hmm_dmirror_cmd, faults) - 32usize];
};
pub const HMM_DMIRROR_PROT_ERROR: _bindgen_ty_1 = 255;
pub const HMM_DMIRROR_PROT_NONE: _bindgen_ty_1 = 0;
pub const HMM_DMIRROR_PROT_READ: _bindgen_ty_1 = 1;
pub const HMM_DMIRROR_PROT_WRITE: _bindgen_ty_1 = 2;
pub const HMM_DMIRROR_PROT_PMD: _bindgen_ty_1 = 4;
pub const HMM_DMIRROR_PROT_PUD: _bindgen_ty_1 = 8;
pub const HMM_DMIRROR_PROT_ZERO: _bindgen_ty_1 = 16;
pub const HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL: _bindgen_ty_1 = 32;
pub const HMM_DMIRROR_PROT_DEV_PRIVATE_REMOTE: _bindgen_ty_1 = 48;
pub const HMM_DMIRROR_PROT_DEV_COHERENT_LOCAL: _bindgen_ty_1 = 64;
pub const HMM_DMIRROR_PROT_DEV_COHERENT_REMOTE: _bindgen_ty_1 = 80;
pub type _bindgen_ty_1 = ::core::ffi::c_uint;
pub const HMM_DMIRROR_KIND_NONE: _bindgen_ty_2 = 0;
pub const HMM_DMIRROR_KIND_PRIVATE: _bindgen_ty_2 = 1;
pub const HMM_DMIRROR_KIND_COHERENT: _bindgen_ty_2 = 2;
pub type _bindgen_ty_2 = ::core::ffi::c_uint;
/// struct hmm_dmirror_info - the device and what it did for this process
/// @size: (in) sizeof(struct hmm_dmirror_info)
/// @kind: (out) HMM_DMIRROR_KIND_*
/// @page_size: (out) bytes in a page
/// @reserved: (in) 0
/// @frames_total: (out) device memory, in pages
/// @frames_free: (out) of these, free
/// @frames_claimed: (out) of these, picked by a migration still under way
/// @frames_resident: (out) of these, holding a page of some process
/// @to_device: (out) pages of this process moved to the device
/// @to_ram_request: (out) pages brought back because somebody asked
/// @to_ram_fault: (out) pages brought back because the CPU touched memory
/// @cpu_faults: (out) CPU faults served
/// @ns_to_device: (out) time spent moving to the device
/// @ns_to_ram: (out) time spent moving back, faults included
/// @frames_retired: (out) frames out of use for good, because their memory went bad
///
/// The process counters are those of the caller's address space on this device
/// since it first opened it.
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct hmm_dmirror_info {
    pub size: __u32,
    pub kind: __u32,
    pub page_size: __u32,
    pub reserved: __u32,
    pub frames_total: __u64,
    pub frames_free: __u64,
    pub frames_claimed: __u64,
    pub frames_resident: __u64,
    pub to_device: __u64,
    pub to_ram_request: __u64,
    pub to_ram_fault: __u64,
    pub cpu_faults: __u64,
    pub ns_to_device: __u64,
    pub ns_to_ram: __u64,
    pub frames_retired: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hmm_dmirror_info"][::core::mem::size_of::<hmm_dmirror_info>() - 104usize];
    ["Alignment of hmm_dmirror_info"][::core::mem::align_of::<hmm_dmirror_info>() - 8usize];
    ["Offset of field: hmm_dmirror_info::size"]
        [::core::mem::offset_of!(hmm_dmirror_info, size) - 0usize];
    ["Offset of field: hmm_dmirror_info::kind"]
        [::core::mem::offset_of!(hmm_dmirror_info, kind) - 4usize];
    ["Offset of field: hmm_dmirror_info::page_size"]
        [::core::mem::offset_of!(hmm_dmirror_info, page_size) - 8usize];
    ["Offset of field: hmm_dmirror_info::reserved"]
        [::core::mem::offset_of!(hmm_dmirror_info, reserved) - 12usize];
    ["Offset of field: hmm_dmirror_info::frames_total"]
        [::core::mem::offset_of!(hmm_dmirror_info, frames_total) - 16usize];
    ["Offset of field: hmm_dmirror_info::frames_free"]
        [::core::mem::offset_of!(hmm_dmirror_info, frames_free) - 24usize];
    ["Offset of field: hmm_dmirror_info::frames_claimed"]
        [::core::mem::offset_of!(hmm_dmirror_info, frames_claimed) - 32usize];
    ["Offset of field: hmm_dmirror_info::frames_resident"]
        [::core::mem::offset_of!(hmm_dmirror_info, frames_resident) - 40usize];
    ["Offset of field: hmm_dmirror_info::to_device"]
        [::core::mem::offset_of!(hmm_dmirror_info, to_device) - 48usize];
    ["Offset of field: hmm_dmirror_info::to_ram_request"]
        [::core::mem::offset_of!(hmm_dmirror_info, to_ram_request) - 56usize];
    ["Offset of field: hmm_dmirror_info::to_ram_fault"]
        [::core::mem::offset_of!(hmm_dmirror_info, to_ram_fault) - 64usize];
    ["Offset of field: hmm_dmirror_info::cpu_faults"]
        [::core::mem::offset_of!(hmm_dmirror_info, cpu_faults) - 72usize];
    ["Offset of field: hmm_dmirror_info::ns_to_device"]
        [::core::mem::offset_of!(hmm_dmirror_info, ns_to_device) - 80usize];
    ["Offset of field: hmm_dmirror_info::ns_to_ram"]
        [::core::mem::offset_of!(hmm_dmirror_info, ns_to_ram) - 88usize];
    ["Offset of field: hmm_dmirror_info::frames_retired"]
        [::core::mem::offset_of!(hmm_dmirror_info, frames_retired) - 96usize];
};
pub const HMM_DMIRROR_TO_DEVICE: _bindgen_ty_3 = 1;
pub const HMM_DMIRROR_TO_RAM: _bindgen_ty_3 = 2;
pub type _bindgen_ty_3 = ::core::ffi::c_uint;
pub const HMM_DMIRROR_SKIP_UNMAPPED: _bindgen_ty_4 = 0;
pub const HMM_DMIRROR_SKIP_VMA: _bindgen_ty_4 = 1;
pub const HMM_DMIRROR_SKIP_BUSY: _bindgen_ty_4 = 2;
pub const HMM_DMIRROR_SKIP_NO_MEMORY: _bindgen_ty_4 = 3;
pub const HMM_DMIRROR_SKIP_COPY: _bindgen_ty_4 = 4;
pub const HMM_DMIRROR_SKIP_REFUSED: _bindgen_ty_4 = 5;
pub const HMM_DMIRROR_SKIP_HOLE: _bindgen_ty_4 = 6;
pub const HMM_DMIRROR_SKIP_NR: _bindgen_ty_4 = 7;
pub type _bindgen_ty_4 = ::core::ffi::c_uint;
pub const HMM_DMIRROR_MOVE_HOLES: _bindgen_ty_5 = 1;
pub const HMM_DMIRROR_MOVE_MAKE_ROOM: _bindgen_ty_5 = 2;
pub type _bindgen_ty_5 = ::core::ffi::c_uint;
/// struct hmm_dmirror_move - move what can be moved, say what was not and why
/// @size: (in) sizeof(struct hmm_dmirror_move)
/// @direction: (in) HMM_DMIRROR_TO_DEVICE or HMM_DMIRROR_TO_RAM
/// @addr: (in) start, page aligned
/// @len: (in) bytes, a multiple of the page size, not 0
/// @flags: (in) HMM_DMIRROR_MOVE_*
/// @moved: (out) pages moved
/// @skipped: (out) pages not moved, by reason; the unused rest is 0
/// @ns: (out) time spent
///
/// Holes in the range are no error. @moved + the sum of @skipped is the number of
/// pages in the range, unless the call was interrupted by a deadly signal (EINTR).
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct hmm_dmirror_move {
    pub size: __u32,
    pub direction: __u32,
    pub addr: __u64,
    pub len: __u64,
    pub flags: __u64,
    pub moved: __u64,
    pub skipped: [__u64; 8usize],
    pub ns: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hmm_dmirror_move"][::core::mem::size_of::<hmm_dmirror_move>() - 112usize];
    ["Alignment of hmm_dmirror_move"][::core::mem::align_of::<hmm_dmirror_move>() - 8usize];
    ["Offset of field: hmm_dmirror_move::size"]
        [::core::mem::offset_of!(hmm_dmirror_move, size) - 0usize];
    ["Offset of field: hmm_dmirror_move::direction"]
        [::core::mem::offset_of!(hmm_dmirror_move, direction) - 4usize];
    ["Offset of field: hmm_dmirror_move::addr"]
        [::core::mem::offset_of!(hmm_dmirror_move, addr) - 8usize];
    ["Offset of field: hmm_dmirror_move::len"]
        [::core::mem::offset_of!(hmm_dmirror_move, len) - 16usize];
    ["Offset of field: hmm_dmirror_move::flags"]
        [::core::mem::offset_of!(hmm_dmirror_move, flags) - 24usize];
    ["Offset of field: hmm_dmirror_move::moved"]
        [::core::mem::offset_of!(hmm_dmirror_move, moved) - 32usize];
    ["Offset of field: hmm_dmirror_move::skipped"]
        [::core::mem::offset_of!(hmm_dmirror_move, skipped) - 40usize];
    ["Offset of field: hmm_dmirror_move::ns"]
        [::core::mem::offset_of!(hmm_dmirror_move, ns) - 104usize];
};
/// struct hmm_dmirror_start - begin a move, and go on without waiting for it
/// @size: (in) sizeof(struct hmm_dmirror_start)
/// @direction: (in) as in struct hmm_dmirror_move, like @addr, @len, @flags
/// @addr: (in) start, page aligned
/// @len: (in) bytes, a multiple of the page size, not 0
/// @flags: (in) HMM_DMIRROR_MOVE_*
/// @eventfd: (in) descriptor of an eventfd that counts up when the move is over, or -1
/// @reserved: (in) 0
/// @id: (out) names the move; never 0
///
/// The descriptor polls readable while there is a result to fetch. Moves still under way when
/// it is closed are ended. EBUSY: 64 moves are under way, or their results not fetched. EBADF:
/// @eventfd is none.
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct hmm_dmirror_start {
    pub size: __u32,
    pub direction: __u32,
    pub addr: __u64,
    pub len: __u64,
    pub flags: __u64,
    pub eventfd: __s32,
    pub reserved: __u32,
    pub id: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hmm_dmirror_start"][::core::mem::size_of::<hmm_dmirror_start>() - 48usize];
    ["Alignment of hmm_dmirror_start"][::core::mem::align_of::<hmm_dmirror_start>() - 8usize];
    ["Offset of field: hmm_dmirror_start::size"]
        [::core::mem::offset_of!(hmm_dmirror_start, size) - 0usize];
    ["Offset of field: hmm_dmirror_start::direction"]
        [::core::mem::offset_of!(hmm_dmirror_start, direction) - 4usize];
    ["Offset of field: hmm_dmirror_start::addr"]
        [::core::mem::offset_of!(hmm_dmirror_start, addr) - 8usize];
    ["Offset of field: hmm_dmirror_start::len"]
        [::core::mem::offset_of!(hmm_dmirror_start, len) - 16usize];
    ["Offset of field: hmm_dmirror_start::flags"]
        [::core::mem::offset_of!(hmm_dmirror_start, flags) - 24usize];
    ["Offset of field: hmm_dmirror_start::eventfd"]
        [::core::mem::offset_of!(hmm_dmirror_start, eventfd) - 32usize];
    ["Offset of field: hmm_dmirror_start::reserved"]
        [::core::mem::offset_of!(hmm_dmirror_start, reserved) - 36usize];
    ["Offset of field: hmm_dmirror_start::id"]
        [::core::mem::offset_of!(hmm_dmirror_start, id) - 40usize];
};
/// struct hmm_dmirror_result - what came of a move that was started
/// @size: (in) sizeof(struct hmm_dmirror_result)
/// @error: (out) 0, or the errno with which HMM_DMIRROR_MOVE would have failed
/// @id: (in) which move, 0 for whichever was over first; (out) which it is
/// @moved: (out) as in struct hmm_dmirror_move, like @skipped and @ns
/// @skipped: (out) pages not moved, by reason; the unused rest is 0
/// @ns: (out) time from start to end
///
/// A result is fetched once. EAGAIN: the move is not over; ENOENT: there is none.
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct hmm_dmirror_result {
    pub size: __u32,
    pub error: __u32,
    pub id: __u64,
    pub moved: __u64,
    pub skipped: [__u64; 8usize],
    pub ns: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hmm_dmirror_result"][::core::mem::size_of::<hmm_dmirror_result>() - 96usize];
    ["Alignment of hmm_dmirror_result"][::core::mem::align_of::<hmm_dmirror_result>() - 8usize];
    ["Offset of field: hmm_dmirror_result::size"]
        [::core::mem::offset_of!(hmm_dmirror_result, size) - 0usize];
    ["Offset of field: hmm_dmirror_result::error"]
        [::core::mem::offset_of!(hmm_dmirror_result, error) - 4usize];
    ["Offset of field: hmm_dmirror_result::id"]
        [::core::mem::offset_of!(hmm_dmirror_result, id) - 8usize];
    ["Offset of field: hmm_dmirror_result::moved"]
        [::core::mem::offset_of!(hmm_dmirror_result, moved) - 16usize];
    ["Offset of field: hmm_dmirror_result::skipped"]
        [::core::mem::offset_of!(hmm_dmirror_result, skipped) - 24usize];
    ["Offset of field: hmm_dmirror_result::ns"]
        [::core::mem::offset_of!(hmm_dmirror_result, ns) - 88usize];
};
pub const HMM_DMIRROR_HINT_NONE: _bindgen_ty_6 = 0;
pub const HMM_DMIRROR_HINT_PREFER_DEVICE: _bindgen_ty_6 = 1;
pub const HMM_DMIRROR_HINT_PREFER_RAM: _bindgen_ty_6 = 2;
pub const HMM_DMIRROR_HINT_READ_MOSTLY: _bindgen_ty_6 = 4;
pub type _bindgen_ty_6 = ::core::ffi::c_uint;
/// struct hmm_dmirror_hint - what the program says about a range of its memory
/// @size: (in) sizeof(struct hmm_dmirror_hint)
/// @hint: SET: (in) HMM_DMIRROR_HINT_*, in place of what was said before; GET: (out) what was
///     said about @addr, (in) 0
/// @addr: (in) start, page aligned
/// @len: (in) bytes, a multiple of the page size, not 0; GET: (out) how much of the range, from
///     @addr on, the same was said about
///
/// A hint is for the caller's address space on this device. It ends with the mapping that it was
/// given for, and with the last descriptor of the device. SET fails with EFAULT if a part of the
/// range is not mapped; nothing is changed when it fails.
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct hmm_dmirror_hint {
    pub size: __u32,
    pub hint: __u32,
    pub addr: __u64,
    pub len: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hmm_dmirror_hint"][::core::mem::size_of::<hmm_dmirror_hint>() - 24usize];
    ["Alignment of hmm_dmirror_hint"][::core::mem::align_of::<hmm_dmirror_hint>() - 8usize];
    ["Offset of field: hmm_dmirror_hint::size"]
        [::core::mem::offset_of!(hmm_dmirror_hint, size) - 0usize];
    ["Offset of field: hmm_dmirror_hint::hint"]
        [::core::mem::offset_of!(hmm_dmirror_hint, hint) - 4usize];
    ["Offset of field: hmm_dmirror_hint::addr"]
        [::core::mem::offset_of!(hmm_dmirror_hint, addr) - 8usize];
    ["Offset of field: hmm_dmirror_hint::len"]
        [::core::mem::offset_of!(hmm_dmirror_hint, len) - 16usize];
};
pub const HMM_DMIRROR_CHECKSUM: _bindgen_ty_7 = 1;
pub const HMM_DMIRROR_ADD: _bindgen_ty_7 = 2;
pub type _bindgen_ty_7 = ::core::ffi::c_uint;
/// struct hmm_dmirror_compute - let the device work on memory in place
/// @size: (in) sizeof(struct hmm_dmirror_compute)
/// @op: (in) HMM_DMIRROR_CHECKSUM or HMM_DMIRROR_ADD
/// @addr: (in) start, page aligned
/// @len: (in) bytes, a multiple of the page size, not 0
/// @operand: (in) for ADD; 0 for CHECKSUM
/// @result: (out) for CHECKSUM: the sum over i of word[i] * (2 * i + 1), modulo 2^64
/// @device_pages: (out) pages that the device found in its own memory
/// @faults: (out) device page faults taken on the way
///
/// The device goes through its own page table, faulting pages in where it must; it
/// never moves them.
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct hmm_dmirror_compute {
    pub size: __u32,
    pub op: __u32,
    pub addr: __u64,
    pub len: __u64,
    pub operand: __u64,
    pub result: __u64,
    pub device_pages: __u64,
    pub faults: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hmm_dmirror_compute"][::core::mem::size_of::<hmm_dmirror_compute>() - 56usize];
    ["Alignment of hmm_dmirror_compute"][::core::mem::align_of::<hmm_dmirror_compute>() - 8usize];
    ["Offset of field: hmm_dmirror_compute::size"]
        [::core::mem::offset_of!(hmm_dmirror_compute, size) - 0usize];
    ["Offset of field: hmm_dmirror_compute::op"]
        [::core::mem::offset_of!(hmm_dmirror_compute, op) - 4usize];
    ["Offset of field: hmm_dmirror_compute::addr"]
        [::core::mem::offset_of!(hmm_dmirror_compute, addr) - 8usize];
    ["Offset of field: hmm_dmirror_compute::len"]
        [::core::mem::offset_of!(hmm_dmirror_compute, len) - 16usize];
    ["Offset of field: hmm_dmirror_compute::operand"]
        [::core::mem::offset_of!(hmm_dmirror_compute, operand) - 24usize];
    ["Offset of field: hmm_dmirror_compute::result"]
        [::core::mem::offset_of!(hmm_dmirror_compute, result) - 32usize];
    ["Offset of field: hmm_dmirror_compute::device_pages"]
        [::core::mem::offset_of!(hmm_dmirror_compute, device_pages) - 40usize];
    ["Offset of field: hmm_dmirror_compute::faults"]
        [::core::mem::offset_of!(hmm_dmirror_compute, faults) - 48usize];
};
pub const HMM_DMIRROR_FAIL_NONE: _bindgen_ty_8 = 0;
pub const HMM_DMIRROR_FAIL_COPY_TO_DEVICE: _bindgen_ty_8 = 1;
pub const HMM_DMIRROR_FAIL_COPY_TO_RAM: _bindgen_ty_8 = 2;
pub const HMM_DMIRROR_FAIL_ZERO: _bindgen_ty_8 = 3;
pub const HMM_DMIRROR_FAIL_WAIT: _bindgen_ty_8 = 4;
pub const HMM_DMIRROR_FAIL_LONG: _bindgen_ty_8 = 5;
pub type _bindgen_ty_8 = ::core::ffi::c_uint;
/// struct hmm_dmirror_fail - make the device fail (needs CAP_SYS_ADMIN)
/// @size: (in) sizeof(struct hmm_dmirror_fail)
/// @leg: (in) HMM_DMIRROR_FAIL_*
/// @skip: (in) let that many segments of this leg succeed first
/// @count: (in) then fail that many
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct hmm_dmirror_fail {
    pub size: __u32,
    pub leg: __u32,
    pub skip: __u64,
    pub count: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hmm_dmirror_fail"][::core::mem::size_of::<hmm_dmirror_fail>() - 24usize];
    ["Alignment of hmm_dmirror_fail"][::core::mem::align_of::<hmm_dmirror_fail>() - 8usize];
    ["Offset of field: hmm_dmirror_fail::size"]
        [::core::mem::offset_of!(hmm_dmirror_fail, size) - 0usize];
    ["Offset of field: hmm_dmirror_fail::leg"]
        [::core::mem::offset_of!(hmm_dmirror_fail, leg) - 4usize];
    ["Offset of field: hmm_dmirror_fail::skip"]
        [::core::mem::offset_of!(hmm_dmirror_fail, skip) - 8usize];
    ["Offset of field: hmm_dmirror_fail::count"]
        [::core::mem::offset_of!(hmm_dmirror_fail, count) - 16usize];
};
