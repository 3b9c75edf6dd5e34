// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel chooses at attach, in a structure that later versions can append to.

use core::ffi::{c_int, c_void};
use core::ptr;

use crate::error::{Error, Outcome, number_of};

/// Version of this header. A caller compiled against it runs with this and every later library; an earlier one refuses
/// it with INVALID_ARGUMENT.
pub const VERSION: u32 = 1;

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
}

const CONFIG_BYTES: usize = size_of::<Config>();
/// What every version of the structure has.
const LEAST_BYTES: usize = CONFIG_BYTES;

impl Config {
    fn default_of(size: u32) -> Self {
        let defaults = guest_shim::Config::default();
        Self {
            size,
            version: VERSION,
            protocol: defaults.protocol,
            cpus: u32::try_from(defaults.cpus).unwrap_or(1),
            initial_bytes: defaults.initial_bytes,
            minimum_bytes: defaults.minimum_bytes,
            growth_limit_bytes: defaults.growth_limit_bytes,
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
        // SAFETY: The caller's structure is at least this long.
        let config = unsafe { pointer.read() };
        let known = config.version != 0 && config.version <= VERSION && config.cpus != 0;
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
    // SAFETY: The caller's structure has `bytes` bytes, at least those of a `Config`; the rest is what later versions
    // append, and 0 means the default there.
    unsafe {
        ptr::write_bytes(config.cast::<c_void>().cast::<u8>(), 0, bytes);
        config.write(Config::default_of(size));
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
            |config: &mut Config| config.size -= 12,
            |config: &mut Config| config.version = 0,
            |config: &mut Config| config.version = VERSION + 1,
            |config: &mut Config| config.cpus = 0,
        ] {
            let mut changed = later(0);
            change(&mut changed.config);
            assert_eq!(read(&changed), Err(Error::InvalidArgument));
        }
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
        let refused = unsafe { svsm_swiotlb_config_init(pointer, CONFIG_BYTES - 1) };
        assert_eq!(refused, Error::InvalidArgument.number());
    }
}
