//! A writer of the kernel's initramfs format ("newc"), enough for files, folders, links and devices.

use std::io::{self, Write};

/// An archive in the making. Names are relative; parents must be added first.
pub struct Archive<W: Write> {
    to: W,
    inode: u32,
    at: u64,
}

impl<W: Write> Archive<W> {
    pub fn new(to: W) -> Self {
        Self { to, inode: 0, at: 0 }
    }

    pub fn folder(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, 0o40755, (0, 0), &[])
    }

    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entry(name, 0o100_000 | mode, (0, 0), content)
    }

    pub fn link(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.entry(name, 0o120_777, (0, 0), target.as_bytes())
    }

    pub fn character_device(&mut self, name: &str, mode: u32, number: (u32, u32)) -> io::Result<()> {
        self.entry(name, 0o20000 | mode, number, &[])
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.to)
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        // inode, mode, uid, gid, nlink, mtime, size, device, device it stands for, name size, check
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        let mut header = String::from("070701");
        for field in fields {
            header += &format!("{field:08X}");
        }
        self.put(header.as_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.pad()?;
        self.put(content)?;
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.to.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        while !self.at.is_multiple_of(4) {
            self.put(&[0])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn entries_are_padded_to_four_bytes() {
        let mut archive = super::Archive::new(Vec::new());
        archive.folder("a").unwrap();
        archive.file("a/b", 0o644, b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"070701"));
        assert_eq!(&bytes[110..112], b"a\0");
    }
}
