//! std for a target, rebuilt from the compiler's sources: once a version, for all trees of this machine.
//!
//! cargo can build std along with a program (`-Zbuild-std`), into the program's own target folder: minutes for
//! every tree and every set of features. Here it is built for an empty crate, and what comes out becomes a
//! sysroot in the cache, as rustup's are.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::target::Target;
use crate::run::{output, raw};
use crate::{cache, packages, progress};

/// How std is built, raised when something below changes.
const RECIPE: &str = "1";

/// As the release profile of rcsnap has it.
const MANIFEST: &str = "[package]\nname = \"sysroot\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
    [lib]\npath = \"lib.rs\"\n[workspace]\n\
    [profile.release]\nopt-level = \"z\"\ncodegen-units = 1\npanic = \"abort\"\n";

/// A function with a large stack frame stays one: in a frame of all of them every address is long.
const FRAME: &str = "-Cllvm-args=--inline-max-stacksize=200";

/// The distribution's compiler, unpacked.
pub struct Compiler {
    folder: PathBuf,
}

impl Compiler {
    /// None where the distribution does not have one that is new enough.
    pub fn find() -> Result<Option<Self>> {
        let repository = packages::own()?;
        if let Some(compiler) = Self::offered(&repository)?.filter(|c| c.new_enough().unwrap_or(false)) {
            return Ok(Some(compiler));
        }
        // A new machine's lists may be those of its installation, with the compiler of that day.
        repository.update()?;
        match Self::offered(&repository)? {
            Some(compiler) if compiler.new_enough()? => Ok(Some(compiler)),
            _ => Ok(None),
        }
    }

    /// What the package lists have now.
    fn offered(repository: &packages::Repository) -> Result<Option<Self>> {
        let own = ["rustc-web", "libstd-rust-web-dev", "rust-web-src"].map(String::from);
        // All of one version; the libraries of rustc carry theirs in the package name, so apt is asked.
        let found = repository.closure(&own, |p| {
            p.starts_with("libstd-rust-web-") || p.starts_with("libllvm") || p == "libz3-4"
        });
        let Ok(mut all) = found else { return Ok(None) };
        all.retain(|p| !p.ends_with("-bpf"));
        if !repository.known(&all) {
            return Ok(None);
        }
        Ok(Some(Self { folder: repository.unpack("rustc", &all)? }))
    }

    /// Whether it builds this workspace, by the `rust-version` of its manifest.
    fn new_enough(&self) -> Result<bool> {
        let manifest = fs::read_to_string(super::workspace().join("Cargo.toml"))?;
        let manifest: toml::Table = toml::from_str(&manifest).context("reading Cargo.toml")?;
        let wanted = manifest["workspace"]["package"]["rust-version"].as_str().and_then(version);
        let mut ask = Command::new(self.rustc());
        self.apply(&mut ask)?;
        let own = output(ask.arg("--version"))?;
        Ok(own.split(' ').nth(1).and_then(version) >= wanted)
    }

    /// Makes `command` (cargo or a shell of it) use this compiler, unstable options included.
    pub fn apply(&self, command: &mut Command) -> Result<()> {
        let libraries = self.libraries()?;
        command.env("RUSTC", self.rustc()).env("RUSTC_BOOTSTRAP", "1").env("LD_LIBRARY_PATH", libraries);
        Ok(())
    }

    fn libraries(&self) -> Result<PathBuf> {
        let mut libraries = fs::read_dir(self.folder.join("usr/lib"))?.flatten().map(|e| e.path());
        let libraries = libraries.find(|p| p.to_string_lossy().ends_with("-linux-gnu"));
        libraries.context("finding the compiler's libraries")
    }

    fn rustc(&self) -> PathBuf {
        self.folder.join("usr/bin/rustc")
    }

    /// Options for rustc, for std and programs alike, and the features that std is built with.
    fn flags(&self, messages: bool) -> Result<(Vec<&'static str>, &'static str)> {
        let mut flags =
            vec!["-Clink-self-contained=no", "-Crelocation-model=static", "-Ctarget-feature=+crt-static"];
        if messages {
            return Ok((flags, "optimize_for_size"));
        }
        // Nothing unwinds and nothing says where: no tables for the one, no file names for the other.
        flags.extend(["-Cforce-unwind-tables=no", "-Zlocation-detail=none"]);
        // Every program makes its own copy of std's generic code, which then knows that memory is never freed.
        flags.push("-Zshare-generics=no");
        flags.push(FRAME);
        let abort = ["-Cpanic=immediate-abort", "-Zunstable-options"];
        let mut probe = Command::new(self.rustc());
        self.apply(&mut probe)?;
        probe.args(abort).args(["--print", "cfg"]);
        // Before 1.92 this panic strategy was a feature of std.
        Ok(match raw(&mut probe)?.status.success() {
            true => {
                flags.extend(abort);
                (flags, "optimize_for_size")
            }
            false => (flags, "optimize_for_size,panic_immediate_abort"),
        })
    }

    /// A cargo that builds for the target, with a std made for it.
    pub fn cargo(&self, target: &Target, messages: bool) -> Result<Command> {
        packages::need(&[target.gcc])?;
        let (mut flags, features) = self.flags(messages)?;
        flags.extend(target.small);
        let llvm: Vec<String> = target.llvm.iter().map(|option| format!("-Cllvm-args={option}")).collect();
        flags.extend(llvm.iter().map(String::as_str));
        let linker = linker(target)?;
        let sysroot = self.std(target, &linker, &flags, features)?;
        let sysroot = format!("--sysroot={}", sysroot.display());
        flags.push(&sysroot);
        let mut cargo = super::cargo();
        self.apply(&mut cargo)?;
        cargo.env(target.variable("LINKER"), linker).env(target.variable("RUSTFLAGS"), flags.join(" "));
        cargo.envs(target.settings.iter().copied());
        Ok(cargo)
    }

    /// Options of rustc for the last step of a program: rustc optimises it as one and leaves the code to the linker
    /// of the same LLVM, which optimises it once more, and merges functions that came out the same.
    pub fn last(&self, target: &Target) -> Result<Vec<String>> {
        let (Some(again), Some(linker)) = (target.again, self.linker()?) else { return Ok(Vec::new()) };
        let mut words = vec!["-fuse-ld=lld".to_owned(), format!("-B{}", linker.display()), again.into()];
        words.push("-Wl,--lto-newpm-passes=default<Oz>".into());
        let frame = FRAME.trim_start_matches("-Cllvm-args=");
        words.extend([frame].iter().chain(target.llvm).map(|option| format!("-Wl,-mllvm,{option}")));
        let mut last = vec!["-Clinker-plugin-lto".to_owned()];
        last.extend(words.iter().map(|word| format!("-Clink-arg={word}")));
        Ok(last)
    }

    /// The folder of the linker of this compiler's LLVM. None where the distribution does not have it.
    fn linker(&self) -> Result<Option<PathBuf>> {
        let repository = packages::own()?;
        let libraries = fs::read_dir(self.libraries()?)?.flatten().map(|e| e.file_name());
        let versions = libraries.filter_map(|name| {
            let name = name.to_string_lossy().into_owned();
            Some(name.strip_prefix("libLLVM.so.")?.split('.').next()?.to_owned())
        });
        let Some(version) = versions.last() else { return Ok(None) };
        let package = [format!("lld-{version}")];
        if !repository.known(&package) {
            progress::say(format!("{} is not to be had: the binary becomes larger", package[0]));
            return Ok(None);
        }
        let folder = repository.unpack("lld", &package)?;
        Ok(Some(folder.join(format!("usr/lib/llvm-{version}/bin"))))
    }

    fn std(&self, target: &Target, linker: &Path, flags: &[&str], features: &str) -> Result<PathBuf> {
        let key = format!("{RECIPE} {} {} {features} {MANIFEST}", self.folder.display(), flags.join(" "));
        let key = target.settings.iter().fold(key, |key, (name, value)| format!("{key} {name}={value}"));
        cache::entry(&format!("std-{}", target.arch), &key, |folder| {
            progress::say(format!("building std for {}: a minute or two", target.triple));
            let work = folder.join("work");
            fs::create_dir(&work)?;
            fs::write(work.join("Cargo.toml"), MANIFEST)?;
            fs::write(work.join("lib.rs"), "#![no_std]\n")?;
            let mut cargo = super::cargo();
            self.apply(&mut cargo)?;
            cargo.args(["build", "--release", "--target", target.triple, "-Zbuild-std=std,panic_abort"]);
            cargo.arg(format!("-Zbuild-std-features={features}"));
            cargo.env("CARGO_TARGET_DIR", work.join("target")).current_dir(&work);
            cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
            // Both kinds of code: for programs that are optimised with std as one, and for those that are not.
            cargo.env(target.variable("RUSTFLAGS"), format!("{} -Cembed-bitcode=yes", flags.join(" ")));
            cargo.env(target.variable("LINKER"), linker).envs(target.settings.iter().copied());
            output(&mut cargo)?;
            let place = folder.join("lib/rustlib").join(target.triple).join("lib");
            fs::create_dir_all(&place)?;
            for built in fs::read_dir(work.join("target").join(target.triple).join("release/deps"))? {
                let built = built?.path();
                let name = built.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if name.ends_with(".rlib") && !name.starts_with("libsysroot-") {
                    fs::rename(&built, place.join(name))?;
                }
            }
            fs::remove_dir_all(&work).context("removing what std was built in")
        })
    }
}

/// The first two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// gcc with musl's start files and libc.a in place of glibc's. rustc asks for libunwind by name; with
/// panics that abort nothing in it is called, so an empty one, backed by gcc's, answers.
fn linker(target: &Target) -> Result<PathBuf> {
    let packaged =
        packages::of(target.debian)?.unpack(&format!("musl-{}", target.arch), &["musl-dev".into()])?;
    let musl = packaged.join("usr/lib").join(target.musl);
    let (gcc, musl) = (target.gcc.0, musl.display());
    let script = format!(
        "#!/bin/sh\nm='{musl}'\no=${{0%/*}}\nexec {gcc} -nostdlib -static -no-pie \"$m/crt1.o\" \"$m/crti.o\" \
         \"$@\" -L\"$m\" -L\"$o\" -Wl,--start-group \"$o/dlstub.o\" -lgcc_eh -lgcc -lc -Wl,--end-group \
         \"$m/crtn.o\"\n"
    );
    let place = cache::entry(&format!("linker-{}", target.arch), &script, |folder| {
        fs::write(folder.join("libunwind.a"), "!<arch>\n")?;
        let stub = folder.join("dlstub.c");
        let text = "int _dl_find_object(void *pc, void *result) { (void)pc; (void)result; return -1; }\n";
        fs::write(&stub, text)?;
        output(Command::new(gcc).args(["-Os", "-c", "-o"]).arg(folder.join("dlstub.o")).arg(&stub))?;
        let driver = folder.join("musl-gcc");
        fs::write(&driver, &script)?;
        Ok(fs::set_permissions(&driver, fs::Permissions::from_mode(0o755))?)
    })?;
    Ok(place.join("musl-gcc"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(super::version("1.85.0"), Some((1, 85)));
        assert!(super::version("1.100") > super::version("1.88.0"));
        assert_eq!(super::version("nightly"), None);
    }
}
