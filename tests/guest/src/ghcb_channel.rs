// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exits to the host through a GHCB (GHCB specification, 2.6 and section 4).
//!
//! The page is shared: the host can change it at any time. So every request is written field by
//! field, and every answer is copied out once and checked before it is used.

use snp::ghcb::{
    ExitStatus, IoExitInformation, PROTOCOL_VERSION, SHARED_BUFFER_SIZE, exit_code, offset,
};

/// A GHCB page that is registered with the host, and the exit that uses it.
pub trait GhcbPage {
    /// Guest physical address of the page.
    fn address(&self) -> u64;
    /// Copies `bytes` to the byte `offset` of the page.
    fn write(&self, offset: usize, bytes: &[u8]);
    /// Copies bytes of the page out, each read once.
    fn read(&self, offset: usize, bytes: &mut [u8]);
    /// Exits with the GHCB MSR naming the page; interrupts are off.
    fn exit(&self);
}

impl<P: GhcbPage> GhcbPage for &P {
    fn address(&self) -> u64 {
        (*self).address()
    }
    fn write(&self, offset: usize, bytes: &[u8]) {
        (*self).write(offset, bytes);
    }
    fn read(&self, offset: usize, bytes: &mut [u8]) {
        (*self).read(offset, bytes);
    }
    fn exit(&self) {
        (*self).exit();
    }
}

/// Why an exit did not do what it was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitError {
    /// The data do not fit the exit or the shared buffer.
    Length,
    /// The host refused the exit, or broke the rules of an answer.
    Host(ExitStatus),
    /// The host left out a register that the answer must have.
    NoResult,
}

/// An exit's arguments; the optional ones are marked valid only where they are given.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exit {
    /// SW_EXITCODE.
    pub code: u64,
    /// SW_EXITINFO1.
    pub info_1: u64,
    /// SW_EXITINFO2.
    pub info_2: u64,
    /// RAX.
    pub rax: Option<u64>,
    /// SW_SCRATCH names the shared buffer.
    pub uses_buffer: bool,
}

/// Exits through one GHCB page.
#[derive(Debug, Clone, Copy)]
pub struct GhcbChannel<P> {
    page: P,
}

impl<P: GhcbPage> GhcbChannel<P> {
    /// A channel over a registered page.
    pub const fn new(page: P) -> Self {
        Self { page }
    }

    /// Makes one exit and checks its status.
    ///
    /// # Errors
    /// [`ExitError::Host`].
    pub fn exit(&self, exit: Exit) -> Result<(), ExitError> {
        self.exit_with_error(exit).map(|_| ())
    }

    /// The same; SW_EXITINFO2 is returned, where some events put an error of their own.
    ///
    /// # Errors
    /// [`ExitError::Host`].
    pub fn exit_with_error(&self, exit: Exit) -> Result<u64, ExitError> {
        let mut valid = [0; 16];
        let mut put = |field: usize, value: u64| {
            self.page.write(field, &value.to_le_bytes());
            let bit = offset::valid_bit(field);
            if let Some(byte) = valid.get_mut(bit / 8) {
                *byte |= 1 << (bit % 8);
            }
        };
        put(offset::SW_EXIT_CODE, exit.code);
        put(offset::SW_EXIT_INFO_1, exit.info_1);
        put(offset::SW_EXIT_INFO_2, exit.info_2);
        if let Some(rax) = exit.rax {
            put(offset::RAX, rax);
        }
        if exit.uses_buffer {
            put(offset::SW_SCRATCH, self.buffer_address());
        }
        self.page.write(offset::VALID_BITMAP, &valid);
        self.page
            .write(offset::PROTOCOL_VERSION, &PROTOCOL_VERSION.to_le_bytes());
        self.page.write(offset::USAGE, &0_u32.to_le_bytes());
        self.page.exit();
        let info_1 = self.field(offset::SW_EXIT_INFO_1);
        let info_2 = self.field(offset::SW_EXIT_INFO_2);
        match ExitStatus::new(info_1, info_2) {
            ExitStatus::Done => Ok(info_2),
            status => Err(ExitError::Host(status)),
        }
    }

    /// OUT of 1, 2 or 4 bytes.
    ///
    /// # Errors
    /// [`ExitError`].
    pub fn port_write(&self, port: u16, bytes: u8, value: u32) -> Result<(), ExitError> {
        self.exit(Exit {
            code: exit_code::IOIO,
            info_1: io_information(port, bytes).into_bits(),
            rax: Some(u64::from(value)),
            ..Exit::default()
        })
    }

    /// IN of 1, 2 or 4 bytes.
    ///
    /// # Errors
    /// [`ExitError`].
    pub fn port_read(&self, port: u16, bytes: u8) -> Result<u32, ExitError> {
        self.exit(Exit {
            code: exit_code::IOIO,
            info_1: io_information(port, bytes).with_input(true).into_bits(),
            rax: Some(0),
            ..Exit::default()
        })?;
        if !self.is_valid(offset::RAX) {
            return Err(ExitError::NoResult);
        }
        let mask = if bytes == 4 {
            u32::MAX
        } else {
            (1 << (8 * u32::from(bytes))) - 1
        };
        Ok(low_half(self.field(offset::RAX)) & mask)
    }

    /// REP OUTSB: a whole line in one exit.
    ///
    /// # Errors
    /// [`ExitError`].
    pub fn port_write_string(&self, port: u16, text: &[u8]) -> Result<(), ExitError> {
        /// The segment register that OUTS reads through.
        const SEGMENT_DS: u8 = 3;
        for part in text.chunks(SHARED_BUFFER_SIZE) {
            self.page.write(offset::SHARED_BUFFER, part);
            let information = io_information(port, 1)
                .with_string(true)
                .with_repeat(true)
                .with_segment(SEGMENT_DS);
            self.exit(Exit {
                code: exit_code::IOIO,
                info_1: information.into_bits(),
                info_2: part.len() as u64,
                uses_buffer: true,
                ..Exit::default()
            })?;
        }
        Ok(())
    }

    /// Reads device memory at a physical address.
    ///
    /// # Errors
    /// [`ExitError`]; at most 8 bytes.
    pub fn mmio_read(&self, address: u64, bytes: &mut [u8]) -> Result<(), ExitError> {
        self.mmio(exit_code::MMIO_READ, address, bytes.len())?;
        self.page.read(offset::SHARED_BUFFER, bytes);
        Ok(())
    }

    /// Writes device memory at a physical address.
    ///
    /// # Errors
    /// [`ExitError`]; at most 8 bytes.
    pub fn mmio_write(&self, address: u64, bytes: &[u8]) -> Result<(), ExitError> {
        if bytes.len() > 8 {
            return Err(ExitError::Length);
        }
        self.page.write(offset::SHARED_BUFFER, bytes);
        self.mmio(exit_code::MMIO_WRITE, address, bytes.len())
    }

    fn mmio(&self, code: u64, address: u64, length: usize) -> Result<(), ExitError> {
        if !matches!(length, 1 | 2 | 4 | 8) {
            return Err(ExitError::Length);
        }
        self.exit(Exit {
            code,
            info_1: address,
            info_2: length as u64,
            uses_buffer: true,
            ..Exit::default()
        })
    }

    /// Copies into the shared buffer, for an exit whose data are a structure.
    pub fn fill_buffer(&self, bytes: &[u8]) {
        let length = bytes.len().min(SHARED_BUFFER_SIZE);
        self.page
            .write(offset::SHARED_BUFFER, bytes.get(..length).unwrap_or(bytes));
    }

    /// Copies the beginning of the shared buffer out, once.
    pub fn read_buffer(&self, bytes: &mut [u8]) {
        self.page.read(offset::SHARED_BUFFER, bytes);
    }

    fn buffer_address(&self) -> u64 {
        self.page.address() + offset::SHARED_BUFFER as u64
    }

    fn field(&self, field: usize) -> u64 {
        let mut bytes = [0; 8];
        self.page.read(field, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn is_valid(&self, field: usize) -> bool {
        let bit = offset::valid_bit(field);
        let mut byte = [0];
        self.page.read(offset::VALID_BITMAP + bit / 8, &mut byte);
        byte[0] & (1 << (bit % 8)) != 0
    }
}

const fn io_information(port: u16, bytes: u8) -> IoExitInformation {
    IoExitInformation::new()
        .with_port(port)
        .with_operand_bytes(bytes)
        .with_address_64(true)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the operand is the lower half"
)]
const fn low_half(value: u64) -> u32 {
    value as u32
}

/// A GHCB page in ordinary memory and a host that answers its exits, for tests.
#[cfg(test)]
pub(crate) mod fake {
    use super::{GhcbPage, offset};
    use snp::ghcb::Ghcb;
    use std::cell::RefCell;
    use std::vec::Vec;
    use zerocopy::{FromBytes, IntoBytes};

    type Host = dyn FnMut(&mut Ghcb);

    /// The page and the host behind it.
    pub(crate) struct FakePage {
        bytes: RefCell<[u8; 4096]>,
        host: RefCell<Box<Host>>,
    }

    impl core::fmt::Debug for FakePage {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            f.write_str("FakePage")
        }
    }

    impl FakePage {
        /// The host gets a copy of the page as it was sent; what it changes is the answer.
        pub(crate) fn new(host: impl FnMut(&mut Ghcb) + 'static) -> Self {
            Self {
                bytes: RefCell::new([0xee; 4096]),
                host: RefCell::new(Box::new(host)),
            }
        }
    }

    /// Answers as an honest host does: status 0, RAX valid.
    pub(crate) fn answer(ghcb: &mut Ghcb, rax: u64) {
        ghcb.sw_exit_info_1 = 0;
        ghcb.sw_exit_info_2 = 0;
        ghcb.rax = rax;
        let bit = offset::valid_bit(offset::RAX);
        ghcb.valid_bitmap[bit / 8] |= 1 << (bit % 8);
    }

    /// The bytes of a string exit.
    pub(crate) fn string(ghcb: &Ghcb) -> Vec<u8> {
        let count = usize::try_from(ghcb.sw_exit_info_2).expect("small");
        ghcb.shared_buffer[..count].to_vec()
    }

    impl GhcbPage for FakePage {
        fn address(&self) -> u64 {
            0x5000
        }
        fn write(&self, offset: usize, bytes: &[u8]) {
            self.bytes.borrow_mut()[offset..][..bytes.len()].copy_from_slice(bytes);
        }
        fn read(&self, offset: usize, bytes: &mut [u8]) {
            bytes.copy_from_slice(&self.bytes.borrow()[offset..][..bytes.len()]);
        }
        fn exit(&self) {
            let mut ghcb = Ghcb::read_from_bytes(&*self.bytes.borrow()).expect("one page");
            (self.host.borrow_mut())(&mut ghcb);
            self.bytes.borrow_mut().copy_from_slice(ghcb.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::{FakePage, answer};
    use super::*;

    #[test]
    fn a_port_read_is_a_complete_request_and_takes_only_its_bytes() {
        let channel = GhcbChannel::new(FakePage::new(|ghcb| {
            assert_eq!(ghcb.sw_exit_code, 0x7b);
            // IN, 16 bit, 64-bit addresses, port 0xcfc.
            assert_eq!(ghcb.sw_exit_info_1, 0x0cfc_0221);
            assert_eq!((ghcb.protocol_version, ghcb.usage), (2, 0));
            for field in [
                offset::SW_EXIT_CODE,
                offset::SW_EXIT_INFO_1,
                offset::SW_EXIT_INFO_2,
            ] {
                assert!(ghcb.is_valid(field));
            }
            assert!(!ghcb.is_valid(offset::SW_SCRATCH));
            answer(ghcb, 0xdead_beef_1234_5678);
        }));
        assert_eq!(channel.port_read(0xcfc, 2), Ok(0x5678));
    }

    #[test]
    fn an_answer_without_its_register_is_refused() {
        let channel = GhcbChannel::new(FakePage::new(|ghcb| {
            answer(ghcb, 1);
            ghcb.valid_bitmap = [0; 16];
        }));
        assert_eq!(channel.port_read(0x60, 1), Err(ExitError::NoResult));
    }

    #[test]
    fn a_refusal_is_an_error() {
        let channel = GhcbChannel::new(FakePage::new(|ghcb| {
            ghcb.sw_exit_info_1 = 2;
            ghcb.sw_exit_info_2 = 5;
        }));
        let refused = Err(ExitError::Host(ExitStatus::Malformed(5)));
        assert_eq!(channel.port_write(0x60, 1, 0), refused);
        let unexpected = GhcbChannel::new(FakePage::new(|ghcb| ghcb.sw_exit_info_1 = 7));
        assert!(unexpected.port_write(0x60, 1, 0).is_err());
    }

    #[test]
    fn device_memory_goes_through_the_buffer() {
        let channel = GhcbChannel::new(FakePage::new(|ghcb| {
            assert_eq!((ghcb.sw_exit_info_1, ghcb.sw_exit_info_2), (0xfe00_0010, 4));
            assert_eq!(ghcb.sw_scratch, 0x5800);
            assert!(ghcb.is_valid(offset::SW_SCRATCH));
            if ghcb.sw_exit_code == exit_code::MMIO_READ {
                ghcb.shared_buffer[..4].copy_from_slice(&[1, 2, 3, 4]);
            } else {
                assert_eq!(ghcb.shared_buffer[..4], [9, 8, 7, 6]);
            }
            answer(ghcb, 0);
        }));
        let mut bytes = [0; 4];
        assert_eq!(channel.mmio_read(0xfe00_0010, &mut bytes), Ok(()));
        assert_eq!(bytes, [1, 2, 3, 4]);
        assert_eq!(channel.mmio_write(0xfe00_0010, &[9, 8, 7, 6]), Ok(()));
        assert_eq!(
            channel.mmio_write(0xfe00_0010, &[0; 3]),
            Err(ExitError::Length)
        );
        assert_eq!(
            channel.mmio_write(0xfe00_0010, &[0; 16]),
            Err(ExitError::Length)
        );
    }
}
