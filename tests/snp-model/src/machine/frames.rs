// SPDX-License-Identifier: MIT OR Apache-2.0
//! What memory holds: frames of bits, encrypted or not.
//!
//! There is one memory, as on hardware. A private access is encrypted and decrypted with a key that belongs to the frame,
//! any other moves the bits as they are. A conversion moves nothing: the host then reads what the guest's key has left
//! there, and a guest that gets the page back finds its old contents again unless somebody has written to it.

use std::boxed::Box;
use std::collections::HashMap;

use crate::access::View;

const PAGE: usize = 4096;

/// What an untouched frame holds, different in every frame: a device or guest that reads it has read what nobody wrote.
const fn pattern(frame: usize) -> u64 {
    (frame as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5AA5_C33C_0FF0_9669
}

/// Turns bytes from `offset` on into bits, or back.
fn turn(key: u64, offset: usize, bytes: &mut [u8]) {
    if key == 0 {
        return;
    }
    // Beginning with what is for the first byte.
    let mut key = key.to_le_bytes();
    key.rotate_left(offset % 8);
    let key = u64::from_le_bytes(key);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_le_bytes(*word) ^ key).to_le_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.to_le_bytes()) {
        *byte ^= key;
    }
}

/// One frame.
pub(super) struct Frame {
    bits: Box<[u8; PAGE]>,
    /// Repeated, it turns private bytes into bits and back. No byte of it is 0.
    key: u64,
    /// Nothing was written since somebody looked for a word here.
    looked_at: bool,
}

impl Frame {
    fn new(number: usize, encrypted: bool) -> Self {
        let mut bits = Box::new([0; PAGE]);
        // At once: word by word it is most of what a test under Miri would do.
        bits.copy_from_slice([pattern(number).to_le_bytes(); 512].as_flattened());
        let key = pattern(!number) | 0x8080_8080_8080_8080;
        Self {
            bits,
            key: if encrypted { key } else { 0 },
            looked_at: false,
        }
    }

    const fn key(&self, view: View) -> u64 {
        match view {
            View::Private => self.key,
            View::Shared => 0,
        }
    }

    /// Bytes that lie inside the frame.
    pub fn read(&self, view: View, offset: usize, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.bits[offset..offset + bytes.len()]);
        turn(self.key(view), offset, bytes);
    }

    /// Bytes that lie inside the frame.
    pub fn write(&mut self, view: View, offset: usize, bytes: &[u8]) {
        self.looked_at = false;
        let key = self.key(view);
        let bits = &mut self.bits[offset..offset + bytes.len()];
        bits.copy_from_slice(bytes);
        turn(key, offset, bits);
    }

    /// Whether the bits have this word, at a multiple of its size.
    fn holds(&self, word: [u8; 8]) -> bool {
        let (words, _) = self.bits.as_chunks::<8>();
        words.contains(&word)
    }
}

/// All memory, and which frame is behind which page. That is a permutation: no frame is behind two pages. A host that maps
/// one twice gains nothing by it, because the reverse map has one page for it, and any access through the other faults to
/// the host.
pub(super) struct Frames {
    contents: HashMap<usize, Frame>,
    /// Pages whose frame does not have their number.
    moved: HashMap<usize, usize>,
    encrypted: bool,
    /// The word that was looked for last, in every frame that was looked at.
    looked_for: [u8; 8],
}

impl Frames {
    pub fn new() -> Self {
        Self {
            contents: HashMap::new(),
            moved: HashMap::new(),
            encrypted: true,
            looked_for: [0; 8],
        }
    }

    /// From now on untouched frames have no key.
    pub fn encrypt_no_more(&mut self) {
        self.encrypted = false;
    }

    /// The frame behind a page.
    pub fn behind(&self, page: usize) -> usize {
        self.moved.get(&page).copied().unwrap_or(page)
    }

    /// Two pages exchange their frames.
    pub fn swap(&mut self, one: usize, other: usize) {
        let frames = (self.behind(one), self.behind(other));
        self.moved.extend([(one, frames.1), (other, frames.0)]);
    }

    pub fn frame(&mut self, number: usize) -> &mut Frame {
        let encrypted = self.encrypted;
        let contents = self.contents.entry(number);
        contents.or_insert_with(|| Frame::new(number, encrypted))
    }

    /// A page whose bits, which are all that the host can read, have this word.
    pub fn page_with(&mut self, word: [u8; 8]) -> Option<usize> {
        let same = core::mem::replace(&mut self.looked_for, word) == word;
        let mut found = None;
        for (number, frame) in &mut self.contents {
            if frame.looked_at && same {
                continue;
            }
            frame.looked_at = !frame.holds(word);
            if !frame.looked_at {
                found = Some(*number);
            }
        }
        let number = found?;
        let page = self.moved.iter().find(|(_, frame)| **frame == number);
        Some(page.map_or(number, |(page, _)| *page))
    }
}
