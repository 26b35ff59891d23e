//! Distribution packages: programs this machine needs (installed), and files for guests and
//! toolchains (only downloaded and unpacked, this machine stays as it is).

mod apt;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{output, shown};
use crate::{cache, progress};
use apt::Apt;

/// Installs the packages whose program is missing. `needs` pairs a program with its package.
pub fn need(needs: &[(&str, &str)]) -> Result<()> {
    let missing: BTreeSet<&str> =
        needs.iter().filter(|(program, _)| !present(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut install = as_root("apt-get");
    // Another program may be installing something: wait for it.
    install
        .args(["-o", "DPkg::Lock::Timeout=300", "install", "--yes", "--no-install-recommends"])
        .args(&missing);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    progress::say(format!("installing on this machine: {}", shown(&install)));
    if output(&mut install).is_err() {
        // After a failure the lists may be old or absent: a fresh machine has none.
        own()?.apt.update()?;
        output(&mut install)?;
    }
    Ok(())
}

/// Packages of one architecture, which are only downloaded and unpacked.
pub struct Repository {
    apt: Apt,
}

/// The packages of this machine's own architecture.
pub fn own() -> Result<Repository> {
    of(output(Command::new("dpkg").arg("--print-architecture"))?.trim())
}

/// The same as its distribution has them, whatever is installed here.
pub fn pristine() -> Result<Repository> {
    Ok(Repository { apt: own()?.apt.blank() })
}

/// The packages of an architecture, by dpkg's name of it.
pub fn of(arch: &str) -> Result<Repository> {
    Ok(Repository { apt: Apt::of(arch)? })
}

impl Repository {
    /// Downloads packages and unpacks them side by side; the entry changes when a version changes.
    pub fn unpack(&self, name: &str, packages: &[String]) -> Result<PathBuf> {
        let fill = || {
            let files = self.available(packages)?;
            cache::entry(name, &files.join("\n"), |folder| self.download(packages, folder))
        };
        fill().or_else(|_| {
            // Lists that are older than the archive name versions which it no longer has.
            self.apt.update()?;
            fill()
        })
    }

    fn download(&self, packages: &[String], folder: &Path) -> Result<()> {
        let debs = folder.join(".debs");
        fs::create_dir(&debs)?;
        output(self.apt.command("apt-get").arg("download").args(packages).current_dir(&debs))?;
        for deb in fs::read_dir(&debs)? {
            output(Command::new("dpkg-deb").arg("-x").arg(deb?.path()).arg(folder))?;
        }
        fs::remove_dir_all(&debs).context("removing the downloaded packages")
    }

    /// `packages` and all they depend on, as far as `wanted` follows.
    pub fn closure(&self, packages: &[String], wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let mut found: BTreeSet<String> = packages.iter().cloned().collect();
        let mut edge: Vec<String> = packages.to_vec();
        while !edge.is_empty() {
            let hide = ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"];
            let mut ask = self.apt.command("apt-cache");
            ask.arg("depends").args(hide.map(|h| format!("--no-{h}"))).args(&edge);
            edge = dependencies(&self.remembered(&mut ask)?);
            edge.retain(|p| wanted(p) && found.insert(p.clone()));
        }
        Ok(found.into_iter().collect())
    }

    /// Fetches the package lists anew.
    pub fn update(&self) -> Result<()> {
        self.apt.update()
    }

    /// True when apt knows a version of every one of these packages.
    pub fn known(&self, packages: &[String]) -> bool {
        self.available(packages).is_ok()
    }

    /// The version of each of these packages, as apt would download it now.
    pub fn versions(&self, packages: &[String]) -> Result<Vec<String>> {
        // Asked one by one: of two that are the same apt tells one.
        let version = |package: &String| {
            let files = self.available(std::slice::from_ref(package))?;
            let version = files.first().and_then(|file| file.split('_').nth(1)).unwrap_or_default();
            Ok(version.replace("%3a", ":"))
        };
        packages.iter().map(version).collect()
    }

    /// File names with versions, as apt would download them now.
    fn available(&self, packages: &[String]) -> Result<Vec<String>> {
        let ask = || {
            let mut command = self.apt.command("apt-get");
            self.remembered(command.args(["download", "--print-uris"]).args(packages))
        };
        let text = match ask() {
            Ok(text) => text,
            Err(_) => {
                self.apt.update()?;
                ask()?
            }
        };
        let files: Vec<String> = text.lines().filter_map(|l| l.split(' ').nth(1)).map(String::from).collect();
        if files.len() != packages.len() {
            bail!("asking apt for {}: got {}", packages.join(" "), files.join(" "));
        }
        Ok(files)
    }

    /// Runs a query of apt, or takes its answer from the cache: a query costs a second or more, and the
    /// answer only changes with the package lists.
    fn remembered(&self, query: &mut Command) -> Result<String> {
        let mut key = shown(query);
        for folder in self.apt.sources() {
            let Ok(found) = fs::metadata(folder) else { continue };
            key += &format!(" {:?}", found.modified()?);
        }
        let folder = cache::folder()?.join("apt");
        fs::create_dir_all(&folder)?;
        let place = folder.join(cache::digest(&key));
        if let Ok(text) = fs::read_to_string(&place) {
            return Ok(text);
        }
        let text = output(query)?;
        let fresh = folder.join(format!("{}.part{}", cache::digest(&key), std::process::id()));
        fs::write(&fresh, &text)?;
        fs::rename(&fresh, &place).context("keeping an answer of apt")?;
        Ok(text)
    }
}

/// Reads `apt-cache depends`. Of alternatives (`|Depends:`) the first is taken, of a virtual package
/// (`<name>`) the first provider on the line below.
fn dependencies(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut lines = text.lines().peekable();
    let mut alternative = false;
    while let Some(line) = lines.next() {
        let Some((kind, name)) = line.trim_start_matches([' ', '|']).split_once(": ") else { continue };
        if !matches!(kind, "Depends" | "PreDepends") {
            continue;
        }
        let skip = std::mem::replace(&mut alternative, line.trim_start().starts_with('|'));
        if skip {
            continue;
        }
        if !name.starts_with('<') {
            names.push(name.to_string());
        } else if let Some(provider) = lines.peek().filter(|l| l.starts_with("    ")) {
            names.push(provider.trim().to_string());
        }
    }
    names
}

/// A command that runs as root, through sudo where we are not.
pub fn as_root(program: impl AsRef<std::ffi::OsStr>) -> Command {
    if nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg(program);
    sudo
}

/// Programs in sbin count: mke2fs is there, and a user's PATH often lacks it.
fn present(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|d| Path::new(d).join(program).is_file())
}

/// A command of this machine that may live in sbin, which a user's PATH often lacks.
pub fn sbin(program: &str) -> Command {
    let found = ["/usr/sbin", "/sbin"].map(|d| Path::new(d).join(program)).into_iter().find(|p| p.is_file());
    Command::new(found.unwrap_or_else(|| program.into()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn first_alternative_and_first_provider_are_taken() {
        let text = "lighttpd\n  PreDepends: init-system-helpers\n  Depends: libc6\n |Depends: media-types\n  \
                    Depends: mime-support\n  Depends: <awk>\n    mawk\n    gawk\n  Conflicts: other\n";
        assert_eq!(super::dependencies(text), ["init-system-helpers", "libc6", "media-types", "mawk"]);
    }
}
