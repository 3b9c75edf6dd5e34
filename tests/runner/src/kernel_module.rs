// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds modules in the folder of an unpacked kernel package, with the modules that they need.
//!
//! Such a folder has no `modules.dep` yet, since `depmod` runs when a package is installed; what a
//! module needs stands in its own `.modinfo` section.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use elf::ElfBytes;
use elf::endian::LittleEndian;

use crate::Failure;

/// File name endings of modules, with the program that unpacks each.
const ENDINGS: [(&str, Option<&str>); 4] = [
    (".ko", None),
    (".ko.xz", Some("xz")),
    (".ko.zst", Some("zstd")),
    (".ko.gz", Some("gzip")),
];

/// A module, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Name with underscores, as the kernel spells it.
    pub name: String,
    /// The object file.
    pub contents: Vec<u8>,
}

/// All module files below a folder, by name.
#[derive(Debug)]
pub struct ModuleFolder {
    files: BTreeMap<String, (PathBuf, Option<&'static str>)>,
}

impl ModuleFolder {
    /// Looks through `folder` and all below it.
    ///
    /// # Errors
    /// Bad input when it cannot be read.
    pub fn read(folder: &Path) -> Result<Self, Failure> {
        let mut files = BTreeMap::new();
        collect(folder, &mut files).map_err(|error| {
            Failure::bad_input(format!(
                "modules below {} cannot be read ({error}); pass the folder lib/modules/RELEASE of a kernel package",
                folder.display()
            ))
        })?;
        Ok(Self { files })
    }

    /// Those of `wanted` that exist, and all that they need, each behind what it needs. One that does
    /// not exist is taken to be built into the kernel; if it is not, its device will be missed.
    ///
    /// # Errors
    /// Bad input when a file is damaged or its packer is missing.
    pub fn resolve(&self, wanted: &[&str]) -> Result<Vec<Module>, Failure> {
        let mut list = Vec::new();
        for name in wanted {
            self.add(name, &mut list, 0)?;
        }
        Ok(list)
    }

    fn add(&self, name: &str, list: &mut Vec<Module>, depth: usize) -> Result<(), Failure> {
        let Some((path, packer)) = self.files.get(name) else {
            return Ok(());
        };
        if list.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let contents = unpack(path, *packer)?;
        let needs = needs(&contents).ok_or_else(|| {
            Failure::bad_input(format!(
                "{} is no kernel module; unpack the kernel package again",
                path.display()
            ))
        })?;
        // Modules do not need each other in a circle; a damaged folder must not hang the builder.
        if depth < self.files.len() {
            for need in &needs {
                self.add(need, list, depth + 1)?;
            }
        }
        list.push(Module {
            name: name.to_owned(),
            contents,
        });
        Ok(())
    }
}

fn collect(
    folder: &Path,
    files: &mut BTreeMap<String, (PathBuf, Option<&'static str>)>,
) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), files)?;
        } else if kind.is_file() {
            let name = entry.file_name().to_string_lossy().replace('-', "_");
            for (ending, packer) in ENDINGS {
                if let Some(name) = name.strip_suffix(ending) {
                    files.insert(name.to_owned(), (entry.path(), packer));
                }
            }
        }
    }
    Ok(())
}

fn unpack(path: &Path, packer: Option<&str>) -> Result<Vec<u8>, Failure> {
    let name = path.display();
    let Some(packer) = packer else {
        return fs::read(path)
            .map_err(|error| Failure::bad_input(format!("{name} cannot be read: {error}")));
    };
    let output = Command::new(packer)
        .arg("-dc")
        .arg(path)
        .output()
        .map_err(|error| {
            Failure::bad_input(format!(
                "{packer} cannot be started ({error}), it unpacks {name}; install it (Debian: xz-utils, zstd or gzip)"
            ))
        })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Failure::bad_input(format!(
        "{packer} cannot unpack {name}; unpack the kernel package again"
    )))
}

/// The `depends=` words of a module; `None` when the file is no module.
fn needs(module: &[u8]) -> Option<Vec<String>> {
    let file = ElfBytes::<LittleEndian>::minimal_parse(module).ok()?;
    let section = file.section_header_by_name(".modinfo").ok()??;
    let (text, _) = file.section_data(&section).ok()?;
    let line = text
        .split(|byte| *byte == 0)
        .find_map(|line| line.strip_prefix(b"depends="))?;
    let words = String::from_utf8_lossy(line);
    let words = words.split(',').filter(|word| !word.is_empty());
    Some(words.map(|word| word.replace('-', "_")).collect())
}

#[cfg(test)]
pub mod tests {
    use std::fs;

    use super::{ModuleFolder, needs};

    /// An object file with nothing but a `.modinfo` section.
    pub fn module(modinfo: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut file = vec![0_u8; 64];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16..20].copy_from_slice(&[1, 0, 62, 0]);
        let sections = (64 + modinfo.len() + names.len()) as u64;
        file[40..48].copy_from_slice(&sections.to_le_bytes());
        file[20] = 1;
        file[52..64].copy_from_slice(&[64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
        file.extend_from_slice(modinfo);
        file.extend_from_slice(names);
        for (name, kind, offset, size) in [
            (0_u32, 0_u32, 0, 0),
            (1, 1, 64, modinfo.len()),
            (10, 3, 64 + modinfo.len(), names.len()),
        ] {
            let mut header = [0_u8; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            file.extend_from_slice(&header);
        }
        file
    }

    #[test]
    fn needs_are_read_from_the_module() {
        let file = module(b"license=GPL\0depends=net_failover,virtio-ring\0name=x\0");
        assert_eq!(
            needs(&file),
            Some(vec!["net_failover".into(), "virtio_ring".into()])
        );
        assert_eq!(needs(&module(b"depends=\0")), Some(vec![]));
        assert_eq!(needs(&module(b"license=GPL\0")), None);
        assert_eq!(needs(b"no object file"), None);
    }

    #[test]
    fn a_module_comes_behind_what_it_needs_and_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let deep = folder.path().join("kernel/drivers/net");
        fs::create_dir_all(&deep).expect("ours");
        for (name, modinfo) in [
            ("virtio_net.ko", &b"depends=net-failover,built_in\0"[..]),
            ("net-failover.ko", b"depends=failover\0"),
            ("failover.ko", b"depends=\0"),
            ("circle.ko", b"depends=circle\0"),
            ("unused.ko", b"depends=\0"),
        ] {
            fs::write(deep.join(name), module(modinfo)).expect("ours");
        }
        let modules = ModuleFolder::read(folder.path()).expect("readable");
        let list = modules
            .resolve(&["virtio_net", "failover", "nvme"])
            .expect("all are modules");
        let names: Vec<_> = list.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["failover", "net_failover", "virtio_net"]);
        assert!(modules.resolve(&["circle"]).is_ok());

        fs::write(deep.join("bad.ko"), b"text").expect("ours");
        fs::write(deep.join("worse.ko.xz"), b"text").expect("ours");
        let modules = ModuleFolder::read(folder.path()).expect("readable");
        for name in ["bad", "worse"] {
            let message = modules.resolve(&[name]).unwrap_err().to_string();
            assert!(
                message.contains(name) && !message.contains('\n'),
                "{message}"
            );
        }
        assert!(ModuleFolder::read(&folder.path().join("no")).is_err());
    }
}
