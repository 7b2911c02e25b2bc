//! Who the command is: user, groups and capabilities.

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::zygote::protocol::Process;

/// Docker's default capabilities.
const SANDBOX: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Takes on the ids of a user who is not root, and keeps all rights of root, also of what is executed.
pub(super) fn keep_all_as(uid: u32, gid: u32) -> Result<(), Errno> {
    let all = rustix::thread::capabilities(None)?.permitted;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_keep_capabilities(true)?;
    set_thread_res_uid(uid, uid, uid)?;
    take_on_sets(all, all)
}

/// Takes on the ids and capabilities that `process` asks for.
///
/// A confined command gets the sandbox's capabilities in its bounding, effective and permitted
/// sets, nothing inheritable or ambient; an unprivileged user loses the effective and permitted
/// ones when the command is executed. An unconfined command keeps everything, whoever runs it.
pub(super) fn take_on(process: &Process) -> Result<(), Errno> {
    let all = rustix::thread::capabilities(None)?.permitted;
    let kept = if process.insecure { all } else { all & SANDBOX };
    // By number, because a newer kernel may have capabilities that have no name here.
    let numbers = (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number));
    for dropped in numbers.filter(|capability| (all & !kept).contains(*capability)) {
        remove_capability_from_bounding_set(dropped)?;
    }
    let groups: Vec<_> = process.groups.iter().copied().map(Gid::from_raw).collect();
    set_thread_groups(&groups)?;
    let gid = Gid::from_raw(process.gid);
    set_thread_res_gid(gid, gid, gid)?;
    if process.uid != 0 {
        set_keep_capabilities(true)?;
    }
    let uid = Uid::from_raw(process.uid);
    set_thread_res_uid(uid, uid, uid)?;
    let inheritable = if process.insecure { kept } else { CapabilitySet::empty() };
    take_on_sets(kept, inheritable)
}

fn take_on_sets(kept: CapabilitySet, inheritable: CapabilitySet) -> Result<(), Errno> {
    clear_ambient_capability_set()?;
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })?;
    for capability in inheritable.iter() {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}
