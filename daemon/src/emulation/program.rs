//! A program of each architecture that does nothing but exit: an ELF file with one segment.

/// An architecture that programs may be of.
pub(super) struct Architecture {
    /// As images have it.
    pub(super) name: &'static str,
    /// The variants that run where a program of the architecture does.
    pub(super) variants: &'static [&'static str],
    /// The number of the machine in an ELF file.
    machine: u16,
    flags: u32,
    is_64_bit: bool,
    is_big_endian: bool,
    /// The machine's instructions to exit with success, each a word in the order of bits.
    code: &'static [u32],
}

const fn little(name: &'static str, machine: u16, code: &'static [u32]) -> Architecture {
    let (flags, is_64_bit, is_big_endian) = (0, true, false);
    Architecture { name, variants: &[""], machine, flags, is_64_bit, is_big_endian, code }
}

pub(super) const ARCHITECTURES: [Architecture; 11] = [
    // mov eax, 60; xor edi, edi; syscall
    little("amd64", 62, &[0x0000_3cb8, 0x0fff_3100, 0x9090_9005]),
    // mov x8, #93; mov x0, #0; svc #0
    little("arm64", 183, &[0xd280_0ba8, 0xd280_0000, 0xd400_0001]),
    // li a7, 93; li a0, 0; ecall
    little("riscv64", 243, &[0x05d0_0893, 0x0000_0513, 0x0000_0073]),
    // li r0, 1; li r3, 0; sc. The flags say that the entry is code and not a descriptor.
    Architecture { flags: 2, is_big_endian: true, ..little("ppc64", 21, POWER) },
    Architecture { flags: 2, ..little("ppc64le", 21, POWER) },
    // lghi %r2, 0; svc 1
    Architecture { is_big_endian: true, ..little("s390x", 22, &[0xa729_0000, 0x0a01_0707]) },
    // xor ebx, ebx; mov eax, 1; int 0x80
    Architecture { is_64_bit: false, ..little("386", 3, &[0x01b8_db31, 0xcd00_0000, 0x9090_9080]) },
    // li v0, 5058; li a0, 0; syscall
    Architecture { flags: MIPS64R2, ..little("mips64le", 8, MIPS) },
    Architecture { flags: MIPS64R2, is_big_endian: true, ..little("mips64", 8, MIPS) },
    // addi.w a7, zero, 93; addi.w a0, zero, 0; syscall 0. The flags name the ABI.
    Architecture {
        flags: 0x43,
        ..little("loong64", 258, &[0x0281_740b, 0x0280_0004, 0x002b_0000])
    },
    // mov r7, #1; mov r0, #0; svc 0. The flags name the EABI.
    Architecture {
        flags: 0x0500_0000,
        is_64_bit: false,
        variants: &["v7", "v6"],
        ..little("arm", 40, &[0xe3a0_7001, 0xe3a0_0000, 0xef00_0000])
    },
];

const POWER: &[u32] = &[0x3800_0001, 0x3860_0000, 0x4400_0002];
const MIPS: &[u32] = &[0x2402_13c2, 0x2404_0000, 0x0000_000c];
const MIPS64R2: u32 = 0x8000_0000;

/// Where the segment is in memory.
const ADDRESS: u64 = 0x1_0000;

impl Architecture {
    /// The file.
    pub(super) fn program(&self) -> Vec<u8> {
        let (class, header, program_header) =
            if self.is_64_bit { (2, 64, 56) } else { (1, 52, 32) };
        let data = if self.is_big_endian { 2 } else { 1 };
        let start = header + program_header;
        let size = (start + self.code.len() * 4) as u64;
        let mut file = File { architecture: self, bytes: Vec::new() };
        file.bytes.extend([0x7f, b'E', b'L', b'F', class, data, 1, 0]);
        file.bytes.extend([0; 8]);
        // An executable.
        file.half(2);
        file.half(self.machine);
        file.word(1);
        file.address(ADDRESS + start as u64);
        file.address(header as u64);
        file.address(0);
        file.word(self.flags);
        file.half(header as u16);
        file.half(program_header as u16);
        file.half(1);
        for _ in 0..3 {
            file.half(0);
        }
        // To be loaded, all of the file, readable and executable.
        let (load, readable_executable) = (1, 5);
        file.word(load);
        if self.is_64_bit {
            file.word(readable_executable);
        }
        for address in [0, ADDRESS, ADDRESS, size, size] {
            file.address(address);
        }
        if !self.is_64_bit {
            file.word(readable_executable);
        }
        file.address(ADDRESS);
        for instruction in self.code {
            file.word(*instruction);
        }
        file.bytes
    }
}

struct File<'a> {
    architecture: &'a Architecture,
    bytes: Vec<u8>,
}

impl File<'_> {
    fn half(&mut self, value: u16) {
        let big = self.architecture.is_big_endian;
        self.bytes.extend(if big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn word(&mut self, value: u32) {
        let big = self.architecture.is_big_endian;
        self.bytes.extend(if big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn address(&mut self, value: u64) {
        if !self.architecture.is_64_bit {
            return self.word(value as u32);
        }
        let big = self.architecture.is_big_endian;
        self.bytes.extend(if big { value.to_be_bytes() } else { value.to_le_bytes() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_have_the_heads_that_emulators_are_registered_for() {
        for (name, head, machine) in [
            ("arm64", [0x7f, b'E', b'L', b'F', 2, 1, 1], [2, 0, 0xb7, 0]),
            ("s390x", [0x7f, b'E', b'L', b'F', 2, 2, 1], [0, 2, 0, 0x16]),
            ("arm", [0x7f, b'E', b'L', b'F', 1, 1, 1], [2, 0, 0x28, 0]),
        ] {
            let found = ARCHITECTURES.iter().find(|one| one.name == name).unwrap().program();
            assert_eq!((&found[..7], &found[16..20]), (&head[..], &machine[..]), "{name}");
        }
    }

    #[test]
    fn a_file_is_as_long_as_its_head_says() {
        for architecture in &ARCHITECTURES {
            let file = architecture.program();
            let start = if architecture.is_64_bit { 64 + 56 } else { 52 + 32 };
            assert_eq!(file.len(), start + architecture.code.len() * 4, "{}", architecture.name);
        }
    }

    /// The one whose instructions this machine knows.
    #[test]
    fn the_program_of_this_machine_exits_with_success() {
        use std::os::unix::fs::PermissionsExt as _;
        let name = crate::image::Platform::host().architecture;
        let own = ARCHITECTURES.iter().find(|one| one.name == name).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("check");
        std::fs::write(&path, own.program()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(std::process::Command::new(&path).status().unwrap().success());
    }
}
