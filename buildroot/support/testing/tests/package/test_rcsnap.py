import os

import infra.basetest

# The external tree that this file is a part of, also where it was linked to.
HERE = os.path.dirname(os.path.realpath(__file__))
EXTERNAL = os.path.abspath(os.path.join(HERE, "../../../.."))


def defconfig(name):
    with open(os.path.join(EXTERNAL, "configs", name + "_defconfig")) as f:
        return f.read()


class TestRcsnapBase(infra.basetest.BRTest):
    br2_external = [EXTERNAL]

    def power_on(self):
        images = os.path.join(self.builddir, "images")
        disk = os.path.join(images, "disk.img")
        drive = "file={},if=none,format=raw,id=hd0".format(disk)
        device = "{},drive=hd0".format(self.disk)
        self.emulator.boot(arch=self.arch,
                           kernel=os.path.join(images, self.kernel),
                           kernel_cmdline=["root=PARTLABEL=rootfs",
                                           "rootwait",
                                           "ro",
                                           "loglevel=6",
                                           "console={}".format(self.console),
                                           "init=/sbin/rcsnap"],
                           options=self.machine + ["-drive", drive,
                                                   "-device", device])
        self.emulator.login()

    def assertBoot(self, kind):
        cmd = "rcsnap status | head -n 1 | grep '^{}'"
        self.assertRunOk(cmd.format(kind))

    def syslogd(self):
        output, exit_code = self.emulator.run("pidof syslogd")
        self.assertEqual(exit_code, 0)
        return output[0].strip()

    def three_boots(self):
        # The first boot runs the scripts, and publishes an image.
        self.power_on()
        self.assertBoot("cold")
        cmd = "for i in $(seq 60); do rcsnap inspect && break; sleep 1; done"
        self.assertRunOk(cmd, timeout=90)
        self.assertRunOk("rcsnap inspect")
        syslogd = self.syslogd()
        self.emulator.stop()

        # The second one is restored: the same init, the same processes.
        self.power_on()
        self.assertBoot("restored")
        self.assertRunOk("cmp /proc/1/exe /bin/busybox")
        self.assertEqual(self.syslogd(), syslogd)
        self.assertRunOk("logger -t rcsnap-test restored")
        cmd = "sleep 1; grep 'rcsnap-test: restored' /var/log/messages"
        self.assertRunOk(cmd)

        # A changed script makes the third one cold.
        self.assertRunOk("echo '# changed' >>/etc/init.d/rcS && sync")
        self.emulator.stop()
        self.power_on()
        self.assertBoot("cold")


class TestRcsnapX8664(TestRcsnapBase):
    config = defconfig("rcsnap_qemu_x86_64")
    arch = "x86_64"
    kernel = "bzImage"
    console = "ttyS0"
    machine = ["-M", "pc"]
    disk = "virtio-blk-pci"

    def test_run(self):
        self.three_boots()


class TestRcsnapAarch64(TestRcsnapBase):
    config = defconfig("rcsnap_qemu_aarch64_virt")
    arch = "aarch64"
    kernel = "Image"
    console = "ttyAMA0"
    machine = ["-M", "virt", "-cpu", "cortex-a53"]
    disk = "virtio-blk-device"

    def test_run(self):
        self.three_boots()


class TestRcsnapArm(TestRcsnapBase):
    config = defconfig("rcsnap_qemu_arm_virt")
    arch = "armv7"
    kernel = "zImage"
    console = "ttyAMA0"
    machine = ["-M", "virt", "-cpu", "cortex-a7"]
    disk = "virtio-blk-device"

    def test_run(self):
        self.three_boots()
