// SPDX-License-Identifier: MIT OR Apache-2.0
//! `runner initrd`: the user space of the Linux guest, a busybox, an init script and a few modules.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use igvm_builder::format_size;

use crate::Failure;
use crate::cpio::Archive;
use crate::kernel_module::ModuleFolder;

/// Drivers of the devices that a machine has if none are named, and of the bus behind them. Many kernels have some of them
/// built in.
const DRIVERS: [&str; 4] = ["virtio_pci", "virtio_blk", "nvme", "virtio_net"];

/// What to put into the initrd.
#[derive(Debug, Clone, Args)]
pub struct InitrdOptions {
    /// The first program, a script for busybox's shell (tests/linux/init)
    #[arg(long, value_name = "FILE")]
    pub init: PathBuf,
    /// A statically linked busybox
    #[arg(long, value_name = "FILE")]
    pub busybox: PathBuf,
    /// The program that marks a moment for the emulated machine (tests/linux/mark.S)
    #[arg(long, value_name = "FILE")]
    pub mark: PathBuf,
    /// Folder with the kernel's modules
    #[arg(long, value_name = "DIR")]
    pub modules: PathBuf,
    /// A further driver among the kernel's modules, which is loaded behind the usual ones
    #[arg(long = "driver", value_name = "NAME")]
    pub further_drivers: Vec<String>,
    /// A further module of that kernel, a .ko file, for the script to load by its name
    #[arg(long = "module", value_name = "FILE")]
    pub further_modules: Vec<PathBuf>,
    /// A folder whose files come along, by their paths below it
    #[arg(long = "folder", value_name = "DIR")]
    pub folders: Vec<PathBuf>,
    /// The initrd to write
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
}

/// Makes the initrd.
///
/// # Errors
/// Bad input when a file is missing or unsuitable.
pub fn make_initrd(options: &InitrdOptions) -> Result<(), Failure> {
    let init = read(&options.init, "the init script")?;
    let busybox = read(&options.busybox, "busybox")?;
    if !init.starts_with(b"#!") {
        return Err(unsuitable(&options.init, "is no script"));
    }
    if !is_static(&busybox) {
        return Err(unsuitable(
            &options.busybox,
            "is no statically linked program",
        ));
    }
    let mark = read(&options.mark, "the program for marks")?;
    let mut drivers = DRIVERS.to_vec();
    drivers.extend(options.further_drivers.iter().map(String::as_str));
    let modules = ModuleFolder::read(&options.modules)?.resolve(&drivers)?;

    let mut archive = Archive::default();
    for folder in ["bin", "dev", "lib", "lib/modules"] {
        archive.folder(folder);
    }
    // The kernel opens it for init before there is anything else in /dev.
    archive.character_device("dev/console", (5, 1));
    archive.file("bin/busybox", true, &busybox);
    archive.file("bin/mark", true, &mark);
    archive.file("init", true, &init);
    let mut order = String::new();
    for module in &modules {
        let name = format!("{}.ko", module.name);
        archive.file(&format!("lib/modules/{name}"), false, &module.contents);
        order = order + &name + "\n";
    }
    archive.file("lib/modules/order", false, order.as_bytes());
    for path in &options.further_modules {
        let (name, contents) = further_module(path)?;
        archive.file(&format!("lib/modules/{name}"), false, &contents);
    }
    for folder in &options.folders {
        add_tree(&mut archive, folder, "")?;
    }
    let bytes = archive.finish();
    let name = options.output.display();
    fs::write(&options.output, &bytes)
        .map_err(|error| Failure::bad_input(format!("{name} cannot be written: {error}")))?;
    let size = format_size(bytes.len() as u64);
    let count = modules.len() + options.further_modules.len();
    println!("{name}: {size}, {count} modules");
    Ok(())
}

/// Adds what is in `folder`, in the order of the names. Links are followed: an initrd of files alone is simpler to read.
fn add_tree(archive: &mut Archive, folder: &Path, below: &str) -> Result<(), Failure> {
    let refuse = |path: &Path, error: std::io::Error| {
        Failure::bad_input(format!(
            "{} cannot be read ({error}); pass a folder of files with --folder",
            path.display()
        ))
    };
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut entries = entries.map_err(|error| refuse(folder, error))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let metadata = fs::metadata(&path).map_err(|error| refuse(&path, error))?;
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if metadata.is_dir() {
            // A folder that is there already is no error to the kernel.
            archive.folder(&name);
            add_tree(archive, &path, &format!("{name}/"))?;
        } else {
            let contents = fs::read(&path).map_err(|error| refuse(&path, error))?;
            let executable = metadata.permissions().mode() & 0o111 != 0;
            archive.file(&name, executable, &contents);
        }
    }
    Ok(())
}

/// Name and contents of a module that is not the kernel's own.
fn further_module(path: &Path) -> Result<(String, Vec<u8>), Failure> {
    let name = path.file_name().map(|name| name.to_string_lossy());
    let name = name.filter(|name| name.ends_with(".ko"));
    let name = name.ok_or_else(|| {
        Failure::bad_input(format!(
            "{} is no module; pass a .ko file that was built for the kernel",
            path.display()
        ))
    })?;
    Ok((name.into_owned(), read(path, "the module")?))
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| {
        let name = path.display();
        Failure::bad_input(format!(
            "{what} {name} cannot be read ({error}); check the path"
        ))
    })
}

fn unsuitable(path: &Path, what: &str) -> Failure {
    let name = path.display();
    Failure::bad_input(format!(
        "{name} {what}; pass tests/linux/init and the busybox of Debian's package busybox-static"
    ))
}

/// A program for this machine that asks for no interpreter.
fn is_static(program: &[u8]) -> bool {
    use elf::abi::{EM_X86_64, PT_INTERP};
    let file = elf::ElfBytes::<elf::endian::LittleEndian>::minimal_parse(program);
    file.is_ok_and(|file| {
        file.ehdr.e_machine == EM_X86_64
            && file
                .segments()
                .is_some_and(|list| list.iter().all(|segment| segment.p_type != PT_INTERP))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{InitrdOptions, make_initrd};
    use crate::kernel_module::tests::module;

    /// A program header table with one entry of this kind.
    fn program(kind: u8) -> Vec<u8> {
        let mut file = vec![0_u8; 64 + 56];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16..21].copy_from_slice(&[2, 0, 62, 0, 1]);
        file[32] = 64;
        file[52..64].copy_from_slice(&[64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
        file[64] = kind;
        file
    }

    fn options(folder: &Path) -> InitrdOptions {
        let path = |name: &str| folder.join(name);
        InitrdOptions {
            init: path("init"),
            busybox: path("busybox"),
            mark: path("mark"),
            modules: path("modules"),
            further_drivers: Vec::new(),
            further_modules: Vec::new(),
            folders: Vec::new(),
            output: path("initrd"),
        }
    }

    #[test]
    fn the_initrd_holds_what_init_needs() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut options = options(folder.path());
        fs::write(&options.mark, "mark").expect("ours");
        fs::write(&options.init, "#!/bin/busybox sh\n").expect("ours");
        fs::write(&options.busybox, program(1)).expect("ours");
        fs::create_dir(&options.modules).expect("ours");
        let further = folder.path().join("further.ko");
        fs::write(&further, "a further module").expect("ours");
        options.further_modules = vec![further];
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("lib64")).expect("ours");
        fs::write(tree.join("lib64/loader"), "a loader").expect("ours");
        options.folders = vec![tree];
        fs::write(options.modules.join("virtio_blk.ko"), module(b"depends=\0")).expect("ours");
        fs::write(options.modules.join("ahci.ko"), module(b"depends=\0")).expect("ours");
        fs::write(options.modules.join("sr_mod.ko"), module(b"depends=\0")).expect("ours");
        options.further_drivers = vec!["ahci".into()];
        make_initrd(&options).expect("all is there");
        let archive = fs::read(&options.output).expect("written");
        let text = String::from_utf8_lossy(&archive);
        for part in [
            "dev/console\0",
            "init\0",
            "bin/busybox\0",
            "lib/modules/virtio_blk.ko\0",
            "virtio_blk.ko\nahci.ko\n",
            "lib/modules/further.ko\0",
            "a further module",
            "lib64\0",
            "lib64/loader\0",
            "a loader",
        ] {
            assert!(text.contains(part), "{part}");
        }
        assert!(!text.contains("sr_mod"), "nobody asked for it");
        // It is the script that loads it.
        assert!(!text.contains("further.ko\n"));
        options.folders = vec![folder.path().join("no-tree")];
        let message = make_initrd(&options).unwrap_err().to_string();
        assert!(message.contains("no-tree cannot be read"), "{message}");
        options.further_modules = vec![folder.path().join("further.c")];
        let message = make_initrd(&options).unwrap_err().to_string();
        assert!(message.contains("further.c is no module"), "{message}");
    }

    #[test]
    fn unsuitable_files_are_named_in_one_line() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = options(folder.path());
        fs::create_dir(&options.modules).expect("ours");
        let refused = |part: &str| {
            let message = make_initrd(&options).unwrap_err().to_string();
            assert!(
                message.contains(part) && !message.contains('\n'),
                "{message}"
            );
        };
        refused("init");
        fs::write(&options.init, "text").expect("ours");
        refused("busybox");
        fs::write(&options.busybox, program(3)).expect("ours");
        refused("is no script");
        fs::write(&options.init, "#!/bin/busybox sh\n").expect("ours");
        refused("statically");
        fs::write(&options.busybox, "text").expect("ours");
        refused("statically");
        fs::write(&options.busybox, program(1)).expect("ours");
        refused("the program for marks");
        assert!(!options.output.exists());
    }
}
