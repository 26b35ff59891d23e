//! What the lab must know of a processor architecture to build for it.

use anyhow::{Context, Result};

/// One architecture: how rustc, the distribution and QEMU call it.
#[derive(Debug)]
pub struct Target {
    /// as board.toml says
    pub arch: &'static str,
    /// rustc's name
    pub triple: &'static str,
    /// dpkg's name
    pub debian: &'static str,
    /// the folder of its libraries under /usr/lib
    pub libraries: &'static str,
    /// the dynamic loader of glibc
    pub loader: &'static str,
    /// the folder that musl-dev brings under /usr/lib
    pub musl: &'static str,
    /// the linker driver and the package it is in
    pub gcc: (&'static str, &'static str),
    /// QEMU for a single program and its package; none for what this machine runs itself
    pub emulator: Option<(&'static str, &'static str)>,
    /// variables for the build of std and of programs
    pub settings: &'static [(&'static str, &'static str)],
    /// options of rustc for small code on this processor
    pub small: &'static [&'static str],
    /// options of LLVM for the same
    pub llvm: &'static [&'static str],
    /// options of the linker with which LLVM goes over the program once more
    pub again: Option<&'static str>,
}

/// No room in the file between code, constants and data.
const TOGETHER: &str = "-Clink-args=-Wl,-z,noseparate-code,-z,norelro";

/// What docs/decisions/0014-options-of-llvm.md weighed for x86.
const X86: [&str; 9] = [
    // Sequences of instructions that stand in several places are made a function. On 64-bit ARM that is the default
    // for code that is optimised for size; here there is no such choice, and the compression of pages takes part.
    "--enable-machine-outliner=always",
    // What was made of them is looked at again.
    "--machine-outliner-reruns=4",
    // What is only faster, and even that rarely here: a constant in a register of its own for a loop or for a
    // function, counters of loops made pointers, copies of short blocks, loads split for the store buffer.
    "--disable-machine-licm",
    "--disable-constant-hoisting",
    "--disable-lsr",
    "--disable-early-taildup",
    "--x86-disable-avoid-SFB",
    // Where registers are spilled, by size; and few tables of addresses, which have eight bytes for a case.
    "--split-spill-mode=size",
    "--min-jump-table-entries=16",
];

/// The architectures of src/arch.
pub const TARGETS: [Target; 3] = [
    Target {
        arch: "x86_64",
        triple: "x86_64-unknown-linux-musl",
        debian: "amd64",
        libraries: "x86_64-linux-gnu",
        loader: "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
        musl: "x86_64-linux-musl",
        gcc: ("gcc", "gcc"),
        emulator: None,
        settings: &[],
        small: &[TOGETHER],
        llvm: &X86,
        again: Some(concat!(
            "-Wl,--icf=safe,--no-rosegment,--image-base=0x400000,--build-id=none,--no-eh-frame-hdr,",
            // More than one register full is copied by a call or a string instruction: here only, std has it in bitcode.
            "-mllvm,--max-store-memcpy=1"
        )),
    },
    Target {
        arch: "aarch64",
        triple: "aarch64-unknown-linux-musl",
        debian: "arm64",
        libraries: "aarch64-linux-gnu",
        loader: "lib/aarch64-linux-gnu/ld-linux-aarch64.so.1",
        musl: "aarch64-linux-musl",
        gcc: ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
        emulator: Some(("qemu-aarch64", "qemu-user")),
        settings: &[],
        // Outlining is its default. Images are of pages of 4 KiB, so the file need not suit larger ones, which would
        // take up to 64 KiB between code, constants and data.
        small: &["-Clink-args=-Wl,-z,max-page-size=4096"],
        llvm: &[],
        again: None,
    },
    Target {
        arch: "armv7",
        triple: "armv7-unknown-linux-musleabihf",
        debian: "armhf",
        libraries: "arm-linux-gnueabihf",
        loader: "lib/arm-linux-gnueabihf/ld-linux-armhf.so.3",
        musl: "arm-linux-musleabihf",
        gcc: ("arm-linux-gnueabihf-gcc", "gcc-arm-linux-gnueabihf"),
        emulator: Some(("qemu-arm", "qemu-user")),
        // The libc crate, and std with it, take musl for the old one with 32-bit times unless told.
        settings: &[("RUST_LIBC_UNSTABLE_MUSL_V1_2_3", "1")],
        // Instructions of two bytes where they suffice: every ARMv7-A has them.
        small: &["-Ctarget-feature=+thumb-mode"],
        llvm: &[],
        again: None,
    },
];

/// The target with this `arch`.
pub fn of(arch: &str) -> Result<&'static Target> {
    let known = || TARGETS.each_ref().map(|t| t.arch).join(", ");
    TARGETS
        .iter()
        .find(|t| t.arch == arch)
        .with_context(|| format!("architecture {arch}: not of {}", known()))
}

impl Target {
    /// The variable by which cargo is told something of this target alone, such as `LINKER`.
    pub fn variable(&self, what: &str) -> String {
        format!("CARGO_TARGET_{}_{what}", self.triple.replace('-', "_").to_uppercase())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn variables_are_as_cargo_reads_them() {
        let target = super::of("armv7").unwrap();
        assert_eq!(target.variable("LINKER"), "CARGO_TARGET_ARMV7_UNKNOWN_LINUX_MUSLEABIHF_LINKER");
        assert!(super::of("riscv64").unwrap_err().to_string().contains("x86_64, aarch64, armv7"));
    }
}
