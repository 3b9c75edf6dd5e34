// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel chooses at attach, in a structure that later versions can append to.

use core::ffi::{c_int, c_void};
use core::mem::offset_of;
use core::ptr;

use crate::error::{Error, Outcome, number_of};

/// Version of this header. A caller compiled against it runs with this and every later library; an earlier one refuses
/// it with INVALID_ARGUMENT.
pub const VERSION: u32 = 3;

/// What the kernel chooses at attach. Filled by `svsm_swiotlb_config_init`, then changed as needed. Sizes in bytes,
/// rounded up to whole chunks of 2 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// Bytes of the structure as the caller knows it. Later versions append fields; what a caller leaves out has its
    /// default, and what it knows beyond this version must be 0.
    pub size: u32,
    /// `SVSM_SWIOTLB_VERSION`.
    pub version: u32,
    /// Number of the protocol; the integrator of the paravisor chooses it. Default 0x40000001.
    pub protocol: u32,
    /// Number of per-CPU caches, at least 1: as many as `cpu` returns different numbers. Default 1.
    pub cpus: u32,
    /// Granted at attach, so that the first mappings find memory. Default 2 MiB.
    pub initial_bytes: u64,
    /// Never given back by `svsm_swiotlb_maintain`. Default 2 MiB.
    pub minimum_bytes: u64,
    /// The most one growth asks for beyond what the mapping at hand needs: bounds the time of one call. Default 32 MiB.
    pub growth_limit_bytes: u64,
    /// Cap on what the service grants, at most its hard cap. Default 0: as it is.
    pub cap_bytes: u64,
    /// `svsm_swiotlb_maintain` grows the pool, by one call, while less than this is free. Default 0.
    pub low_watermark_bytes: u64,
    /// `svsm_swiotlb_maintain` gives back what is free beyond this. Default 0: the load of the recent past alone decides.
    pub high_watermark_bytes: u64,
    /// 1: attach does not ask the core protocol whether the paravisor offers ours (QUERY_PROTOCOL), for a kernel whose
    /// `call` carries this protocol only. The UUID that IDENTIFY answers is the proof then, as it is in any case.
    /// Default 0: it asks.
    pub skip_query_protocol: u32,
    /// 0.
    pub reserved: u32,
}

const CONFIG_BYTES: usize = size_of::<Config>();
/// What every version of the structure has. All that was appended since has the default 0.
const LEAST_BYTES: usize = offset_of!(Config, cap_bytes);
/// What the first version with fields behind the watermarks has.
const THIRD_BYTES: usize = offset_of!(Config, reserved) + size_of::<u32>();

/// The version whose header has a structure of this size. Callers fill the structure through `svsm_swiotlb_config_init`
/// of this library, so the size is what tells their header.
const fn version_of(bytes: usize) -> u32 {
    if bytes >= THIRD_BYTES {
        VERSION
    } else if bytes > LEAST_BYTES {
        2
    } else {
        1
    }
}

impl Config {
    fn default_of(size: u32) -> Self {
        let defaults = guest_shim::Config::default();
        Self {
            size,
            version: version_of(size as usize),
            protocol: defaults.protocol,
            cpus: u32::try_from(defaults.cpus).unwrap_or(1),
            initial_bytes: defaults.initial_bytes,
            minimum_bytes: defaults.minimum_bytes,
            growth_limit_bytes: defaults.growth_limit_bytes,
            cap_bytes: defaults.cap_bytes.unwrap_or(0),
            low_watermark_bytes: defaults.low_watermark_bytes,
            high_watermark_bytes: 0,
            skip_query_protocol: u32::from(!defaults.query_protocol),
            reserved: 0,
        }
    }

    /// Version of the header that the caller was compiled against.
    pub(crate) const fn header_version(&self) -> u32 {
        // As large as an address, so nothing is cut off.
        let by_size = version_of(self.size as usize);
        if self.version < by_size {
            self.version
        } else {
            by_size
        }
    }

    /// Reads a caller's structure of whatever version.
    ///
    /// # Safety
    /// A pointer that is neither null nor misaligned points to as many initialised bytes as its first field says.
    pub(crate) unsafe fn read(pointer: *const Self) -> Result<Self, Error> {
        if pointer.is_null() || !pointer.is_aligned() {
            return Err(Error::InvalidArgument);
        }
        // SAFETY: Every version of the structure begins with its size.
        let size = unsafe { pointer.cast::<u32>().read() };
        let bytes = usize::try_from(size).unwrap_or(usize::MAX);
        if bytes < LEAST_BYTES {
            return Err(Error::InvalidArgument);
        }
        let mut config = Self::default_of(size);
        // SAFETY: The caller's structure has `bytes` bytes, ours `CONFIG_BYTES`; every field is a plain number. What an
        // earlier version does not have keeps its default.
        unsafe {
            let target = (&raw mut config).cast::<u8>();
            ptr::copy_nonoverlapping(pointer.cast::<u8>(), target, bytes.min(CONFIG_BYTES));
        }
        let known = config.version != 0
            && config.version <= VERSION
            && config.cpus != 0
            && config.skip_query_protocol <= 1
            && config.reserved == 0;
        // SAFETY: The caller's structure has `bytes` bytes.
        if known && unsafe { is_zero(pointer.cast(), CONFIG_BYTES, bytes) } {
            Ok(config)
        } else {
            Err(Error::InvalidArgument)
        }
    }
}

impl From<Config> for guest_shim::Config {
    fn from(config: Config) -> Self {
        Self {
            protocol: config.protocol,
            initial_bytes: config.initial_bytes,
            minimum_bytes: config.minimum_bytes,
            growth_limit_bytes: config.growth_limit_bytes,
            cap_bytes: (config.cap_bytes != 0).then_some(config.cap_bytes),
            low_watermark_bytes: config.low_watermark_bytes,
            high_watermark_bytes: match config.high_watermark_bytes {
                0 => u64::MAX,
                bytes => bytes,
            },
            query_protocol: config.skip_query_protocol == 0,
            cpus: usize::try_from(config.cpus).unwrap_or(1),
        }
    }
}

/// Whether the bytes from `from` up to `to` are all 0.
///
/// # Safety
/// `structure` is valid for reads of `to` bytes.
unsafe fn is_zero(structure: *const u8, from: usize, to: usize) -> bool {
    // SAFETY: By the caller's contract.
    (from..to).all(|at| unsafe { structure.add(at).read() } == 0)
}

/// Fills a configuration with the defaults.
///
/// `config_bytes` is `sizeof *config`. INVALID_ARGUMENT for a null pointer or a size that no version has.
///
/// # Safety
/// `config` is null or points to `config_bytes` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_config_init(
    config: *mut Config,
    config_bytes: usize,
) -> c_int {
    number_of(
        // SAFETY: The caller's contract.
        unsafe { fill(config, config_bytes) },
    )
}

/// # Safety
/// As for [`svsm_swiotlb_config_init`].
unsafe fn fill(config: *mut Config, bytes: usize) -> Outcome {
    let size = u32::try_from(bytes).map_err(|_| Error::InvalidArgument)?;
    if config.is_null() || !config.is_aligned() || bytes < LEAST_BYTES {
        return Err(Error::InvalidArgument);
    }
    // SAFETY: The caller's structure has `bytes` bytes, at least those of the first version; the rest is what later versions
    // append, and 0 means the default there.
    unsafe {
        ptr::write_bytes(config.cast::<c_void>().cast::<u8>(), 0, bytes);
        let defaults = Config::default_of(size);
        let source = (&raw const defaults).cast::<u8>();
        ptr::copy_nonoverlapping(source, config.cast::<u8>(), bytes.min(CONFIG_BYTES));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration as a later header would have it.
    #[repr(C)]
    struct Later {
        config: Config,
        appended: u64,
    }

    fn later(appended: u64) -> Later {
        let size = u32::try_from(size_of::<Later>()).unwrap();
        Later {
            config: Config::default_of(size),
            appended,
        }
    }

    fn read(later: &Later) -> Result<Config, Error> {
        // SAFETY: The size is that of the structure, or smaller.
        unsafe { Config::read(ptr::from_ref(later).cast()) }
    }

    #[test]
    fn the_defaults_are_the_shims() {
        let config = guest_shim::Config::from(Config::default_of(0));
        assert_eq!(config, guest_shim::Config::default());
    }

    #[test]
    fn a_longer_structure_is_taken_while_what_is_appended_is_zero() {
        assert_eq!(read(&later(0)), Ok(later(0).config));
        for appended in [1, 1 << 63] {
            assert_eq!(read(&later(appended)), Err(Error::InvalidArgument));
        }
    }

    #[test]
    fn other_sizes_versions_and_no_cpus_are_refused() {
        for change in [
            |config: &mut Config| config.size = 0,
            |config: &mut Config| config.size = u32::try_from(LEAST_BYTES).unwrap() - 1,
            |config: &mut Config| config.version = 0,
            |config: &mut Config| config.version = VERSION + 1,
            |config: &mut Config| config.cpus = 0,
            |config: &mut Config| config.skip_query_protocol = 2,
            |config: &mut Config| config.reserved = 1,
        ] {
            let mut changed = later(0);
            change(&mut changed.config);
            assert_eq!(read(&changed), Err(Error::InvalidArgument));
        }
    }

    #[test]
    fn a_caller_of_the_first_version_gets_the_defaults_of_what_it_does_not_know() {
        let mut old = later(0);
        old.config.size = u32::try_from(LEAST_BYTES).unwrap();
        old.config.version = 1;
        old.config.initial_bytes = 7;
        old.config.cap_bytes = 99;
        let config = guest_shim::Config::from(read(&old).unwrap());
        let expected = guest_shim::Config {
            initial_bytes: 7,
            ..guest_shim::Config::default()
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn the_size_tells_the_header_that_a_caller_was_compiled_against() {
        let of = |size: usize| {
            let mut config = [0_u64; size_of::<Later>() / 8];
            let pointer = config.as_mut_ptr().cast();
            // SAFETY: The array has this many bytes.
            assert_eq!(unsafe { svsm_swiotlb_config_init(pointer, size) }, 0);
            // SAFETY: As above.
            unsafe { Config::read(pointer) }.unwrap().header_version()
        };
        let second = offset_of!(Config, skip_query_protocol);
        assert_eq!(
            [LEAST_BYTES, second, CONFIG_BYTES, size_of::<Later>()].map(of),
            [1, 2, 3, 3]
        );
        let mut early = later(0);
        early.config.version = 2;
        assert_eq!(read(&early).unwrap().header_version(), 2);
    }

    #[test]
    fn a_caller_chooses_not_to_ask_the_core_protocol() {
        let mut without = later(0);
        without.config.skip_query_protocol = 1;
        let config = guest_shim::Config::from(read(&without).unwrap());
        assert!(!config.query_protocol);
    }

    #[test]
    fn init_fills_a_longer_structure_to_its_end() {
        let mut longer = later(u64::MAX);
        longer.config.cpus = 77;
        let pointer = ptr::from_mut(&mut longer).cast();
        // SAFETY: The structure has this many bytes.
        let answer = unsafe { svsm_swiotlb_config_init(pointer, size_of::<Later>()) };
        assert_eq!(answer, 0);
        assert_eq!((longer.appended, longer.config), (0, later(0).config));
        // SAFETY: As above.
        let refused = unsafe { svsm_swiotlb_config_init(pointer, LEAST_BYTES - 1) };
        assert_eq!(refused, Error::InvalidArgument.number());
    }
}
