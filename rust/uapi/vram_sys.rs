// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note
// GENERATED from c/drivers/vram/hmm_vram.h by `make gen`; not to be edited.

pub const HMM_VRAM_SORT_MAX: u32 = 16777216;
pub const HMM_VRAM_COMMANDS_MAX: u32 = 256;
pub const HMM_VRAM_JOBS: u32 = 64;
pub type __u32 = ::core::ffi::c_uint;
pub type __u64 = ::core::ffi::c_ulonglong;
pub const HMM_VRAM_FILL: _bindgen_ty_1 = 1;
pub const HMM_VRAM_COPY: _bindgen_ty_1 = 2;
pub const HMM_VRAM_AXPY: _bindgen_ty_1 = 3;
pub const HMM_VRAM_SUM: _bindgen_ty_1 = 4;
pub const HMM_VRAM_SORT: _bindgen_ty_1 = 5;
pub type _bindgen_ty_1 = ::core::ffi::c_uint;
/// struct hmm_vram_command - one thing to do
/// @op: HMM_VRAM_*
/// @reserved: 0
/// @dst: address that is written, a multiple of 8
/// @src: address that is read, a multiple of 8; 0 where there is none
/// @len: bytes, a multiple of 8, not 0
/// @value: for FILL and AXPY; otherwise 0
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct hmm_vram_command {
    pub op: __u32,
    pub reserved: __u32,
    pub dst: __u64,
    pub src: __u64,
    pub len: __u64,
    pub value: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hmm_vram_command"][::core::mem::size_of::<hmm_vram_command>() - 40usize];
    ["Alignment of hmm_vram_command"][::core::mem::align_of::<hmm_vram_command>() - 8usize];
    ["Offset of field: hmm_vram_command::op"]
        [::core::mem::offset_of!(hmm_vram_command, op) - 0usize];
    ["Offset of field: hmm_vram_command::reserved"]
        [::core::mem::offset_of!(hmm_vram_command, reserved) - 4usize];
    ["Offset of field: hmm_vram_command::dst"]
        [::core::mem::offset_of!(hmm_vram_command, dst) - 8usize];
    ["Offset of field: hmm_vram_command::src"]
        [::core::mem::offset_of!(hmm_vram_command, src) - 16usize];
    ["Offset of field: hmm_vram_command::len"]
        [::core::mem::offset_of!(hmm_vram_command, len) - 24usize];
    ["Offset of field: hmm_vram_command::value"]
        [::core::mem::offset_of!(hmm_vram_command, value) - 32usize];
};
pub const HMM_VRAM_STAY: _bindgen_ty_2 = 1;
pub type _bindgen_ty_2 = ::core::ffi::c_uint;
/// struct hmm_vram_submit - queue commands, which are done one after the other
/// @size: (in) sizeof(struct hmm_vram_submit)
/// @nr: (in) number of commands, 1 to HMM_VRAM_COMMANDS_MAX
/// @commands: (in) address of as many struct hmm_vram_command
/// @flags: (in) HMM_VRAM_STAY or 0
/// @job: (out) number of the submission, for HMM_VRAM_WAIT; they count up from 1
///
/// Submissions of one descriptor are done in order. If a command fails, the rest of its
/// submission is not done; the next submission is.
///
/// EAGAIN: HMM_VRAM_JOBS submissions are waiting already.
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct hmm_vram_submit {
    pub size: __u32,
    pub nr: __u32,
    pub commands: __u64,
    pub flags: __u64,
    pub job: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hmm_vram_submit"][::core::mem::size_of::<hmm_vram_submit>() - 32usize];
    ["Alignment of hmm_vram_submit"][::core::mem::align_of::<hmm_vram_submit>() - 8usize];
    ["Offset of field: hmm_vram_submit::size"]
        [::core::mem::offset_of!(hmm_vram_submit, size) - 0usize];
    ["Offset of field: hmm_vram_submit::nr"][::core::mem::offset_of!(hmm_vram_submit, nr) - 4usize];
    ["Offset of field: hmm_vram_submit::commands"]
        [::core::mem::offset_of!(hmm_vram_submit, commands) - 8usize];
    ["Offset of field: hmm_vram_submit::flags"]
        [::core::mem::offset_of!(hmm_vram_submit, flags) - 16usize];
    ["Offset of field: hmm_vram_submit::job"]
        [::core::mem::offset_of!(hmm_vram_submit, job) - 24usize];
};
/// struct hmm_vram_wait - wait until a submission is done
/// @size: (in) sizeof(struct hmm_vram_wait)
/// @error: (out) 0, or the errno of the command that failed
/// @job: (in) from HMM_VRAM_SUBMIT; one of the last HMM_VRAM_JOBS
/// @timeout_ms: (in) milliseconds to wait at most; 0 only looks
/// @done: (out) commands done
/// @fault_addr: (out) address that the failed command could not reach, if that was why
/// @faults: (out) device page faults
/// @moved: (out) pages that moved to the device for them
/// @video_pages: (out) pages that the device found in its own memory, each as often as it did
/// @ram_pages: (out) pages it worked on elsewhere
/// @dma_bytes: (out) bytes copied or cleared by the DMA engine for the commands themselves
///
/// ETIMEDOUT: not done yet; ENOENT: no such job is remembered; EINTR.
/// @error may be EFAULT (no mapping), EACCES (a mapping that may not be written), EIO, ENODEV
/// (the device failed or was lost), ECANCELED (the descriptor was closed), ENOMEM, ESRCH.
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct hmm_vram_wait {
    pub size: __u32,
    pub error: __u32,
    pub job: __u64,
    pub timeout_ms: __u64,
    pub done: __u64,
    pub fault_addr: __u64,
    pub faults: __u64,
    pub moved: __u64,
    pub video_pages: __u64,
    pub ram_pages: __u64,
    pub dma_bytes: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hmm_vram_wait"][::core::mem::size_of::<hmm_vram_wait>() - 80usize];
    ["Alignment of hmm_vram_wait"][::core::mem::align_of::<hmm_vram_wait>() - 8usize];
    ["Offset of field: hmm_vram_wait::size"][::core::mem::offset_of!(hmm_vram_wait, size) - 0usize];
    ["Offset of field: hmm_vram_wait::error"]
        [::core::mem::offset_of!(hmm_vram_wait, error) - 4usize];
    ["Offset of field: hmm_vram_wait::job"][::core::mem::offset_of!(hmm_vram_wait, job) - 8usize];
    ["Offset of field: hmm_vram_wait::timeout_ms"]
        [::core::mem::offset_of!(hmm_vram_wait, timeout_ms) - 16usize];
    ["Offset of field: hmm_vram_wait::done"]
        [::core::mem::offset_of!(hmm_vram_wait, done) - 24usize];
    ["Offset of field: hmm_vram_wait::fault_addr"]
        [::core::mem::offset_of!(hmm_vram_wait, fault_addr) - 32usize];
    ["Offset of field: hmm_vram_wait::faults"]
        [::core::mem::offset_of!(hmm_vram_wait, faults) - 40usize];
    ["Offset of field: hmm_vram_wait::moved"]
        [::core::mem::offset_of!(hmm_vram_wait, moved) - 48usize];
    ["Offset of field: hmm_vram_wait::video_pages"]
        [::core::mem::offset_of!(hmm_vram_wait, video_pages) - 56usize];
    ["Offset of field: hmm_vram_wait::ram_pages"]
        [::core::mem::offset_of!(hmm_vram_wait, ram_pages) - 64usize];
    ["Offset of field: hmm_vram_wait::dma_bytes"]
        [::core::mem::offset_of!(hmm_vram_wait, dma_bytes) - 72usize];
};
pub const HMM_VRAM_ENGINE_DMA: _bindgen_ty_3 = 0;
pub const HMM_VRAM_ENGINE_CPU: _bindgen_ty_3 = 1;
pub const HMM_VRAM_ENGINE_LOST: _bindgen_ty_3 = 2;
pub type _bindgen_ty_3 = ::core::ffi::c_uint;
/// struct hmm_vram_status - how the device is
/// @size: (in) sizeof(struct hmm_vram_status)
/// @engine: (out) HMM_VRAM_ENGINE_*
/// @resets: (out) of the engine since the driver was bound
/// @commands: (out) that the engine was given
/// @bytes: (out) in these
/// @lost_interrupts: (out) completions found without one
/// @odd_completions: (out) completions of commands that were not given
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct hmm_vram_status {
    pub size: __u32,
    pub engine: __u32,
    pub resets: __u64,
    pub commands: __u64,
    pub bytes: __u64,
    pub lost_interrupts: __u64,
    pub odd_completions: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hmm_vram_status"][::core::mem::size_of::<hmm_vram_status>() - 48usize];
    ["Alignment of hmm_vram_status"][::core::mem::align_of::<hmm_vram_status>() - 8usize];
    ["Offset of field: hmm_vram_status::size"]
        [::core::mem::offset_of!(hmm_vram_status, size) - 0usize];
    ["Offset of field: hmm_vram_status::engine"]
        [::core::mem::offset_of!(hmm_vram_status, engine) - 4usize];
    ["Offset of field: hmm_vram_status::resets"]
        [::core::mem::offset_of!(hmm_vram_status, resets) - 8usize];
    ["Offset of field: hmm_vram_status::commands"]
        [::core::mem::offset_of!(hmm_vram_status, commands) - 16usize];
    ["Offset of field: hmm_vram_status::bytes"]
        [::core::mem::offset_of!(hmm_vram_status, bytes) - 24usize];
    ["Offset of field: hmm_vram_status::lost_interrupts"]
        [::core::mem::offset_of!(hmm_vram_status, lost_interrupts) - 32usize];
    ["Offset of field: hmm_vram_status::odd_completions"]
        [::core::mem::offset_of!(hmm_vram_status, odd_completions) - 40usize];
};
