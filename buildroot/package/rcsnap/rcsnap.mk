################################################################################
#
# rcsnap
#
################################################################################

# The tree that this external tree is a part of. Nothing of it is downloaded,
# so nothing is vendored at the time of downloads either: see RCSNAP_VENDOR.
RCSNAP_VERSION = 0.1.0
RCSNAP_SITE = $(BR2_EXTERNAL_RCSNAP_PATH)/..
RCSNAP_SITE_METHOD = local
RCSNAP_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = --exclude=/target
RCSNAP_LICENSE = MIT or Apache-2.0
RCSNAP_LICENSE_FILES = LICENSE-MIT LICENSE-APACHE

# The infrastructure sets a profile of its own. Here size counts, and the
# binary was tested as its Cargo.toml has it.
RCSNAP_CARGO_ENV = \
	CARGO_PROFILE_RELEASE_OPT_LEVEL="z" \
	CARGO_PROFILE_RELEASE_LTO="fat" \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS="1"

# Static, because it runs before anything is mounted, and replaces its own
# memory. The variable is the one that the infrastructure sets for arm, so its
# flag is repeated.
RCSNAP_RUSTFLAGS = -Ctarget-feature=+crt-static -Crelocation-model=static
ifeq ($(NORMALIZED_ARCH),arm)
RCSNAP_RUSTFLAGS += -Clink-arg=-Wl,--allow-multiple-definition
# The libc crate takes musl for the old one with 32-bit times unless told.
RCSNAP_CARGO_ENV += RUST_LIBC_UNSTABLE_MUSL_V1_2_3="1"
endif
RCSNAP_CARGO_ENV += \
	CARGO_TARGET_$(call UPPERCASE,$(RUSTC_TARGET_NAME))_RUSTFLAGS="$(RCSNAP_RUSTFLAGS)"

# The workspace has host tools as well.
RCSNAP_CARGO_BUILD_OPTS = --package rcsnap --bin rcsnap

# cargo-post-process does this to what is downloaded. A tree that has a folder
# VENDOR and says so in .cargo/config.toml is taken as it is.
define RCSNAP_VENDOR
	$(Q)mkdir -p $(BR_CARGO_HOME)
	cd $(@D) && if test ! -e VENDOR; then \
		$(TARGET_MAKE_ENV) $(PKG_COMMON_CARGO_ENV) \
		flock $(BR_CARGO_HOME)/.br-lock \
		cargo vendor --locked VENDOR > .cargo/config.toml; \
	fi
endef
RCSNAP_PRE_CONFIGURE_HOOKS += RCSNAP_VENDOR

ifneq ($(call qstrip,$(BR2_PACKAGE_RCSNAP_STORE)),)
define RCSNAP_INSTALL_CONF
	printf 'store = %s\n' $(BR2_PACKAGE_RCSNAP_STORE) \
		> $(TARGET_DIR)/etc/rcsnap.conf
	chmod 0644 $(TARGET_DIR)/etc/rcsnap.conf
endef
endif

# Not by cargo install, which knows no other place than usr/bin.
define RCSNAP_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 \
		$(@D)/target/$(RUSTC_TARGET_NAME)/$(if $(BR2_ENABLE_DEBUG),debug,release)/rcsnap \
		$(TARGET_DIR)/sbin/rcsnap
	mkdir -p $(TARGET_DIR)/etc
	$(RCSNAP_INSTALL_CONF)
endef

# The package of the init installs its inittab, in an order that is not known.
define RCSNAP_ADD_READY_TO_INITTAB
	$(RCSNAP_PKGDIR)/add-ready.sh $(TARGET_DIR)/etc/inittab
endef
RCSNAP_TARGET_FINALIZE_HOOKS += RCSNAP_ADD_READY_TO_INITTAB

# What board/kernel.config asks for. NAMESPACES is there because TIME_NS is
# below it, and some configurations leave it out.
define RCSNAP_LINUX_CONFIG_FIXUPS
	$(call KCONFIG_ENABLE_OPT,CONFIG_CHECKPOINT_RESTORE)
	$(call KCONFIG_ENABLE_OPT,CONFIG_KCMP)
	$(call KCONFIG_ENABLE_OPT,CONFIG_PROC_PAGE_MONITOR)
	$(call KCONFIG_ENABLE_OPT,CONFIG_CROSS_MEMORY_ATTACH)
	$(call KCONFIG_ENABLE_OPT,CONFIG_POSIX_TIMERS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_MULTIUSER)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NET)
	$(call KCONFIG_ENABLE_OPT,CONFIG_UNIX)
	$(call KCONFIG_ENABLE_OPT,CONFIG_PROC_FS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_PROC_SYSCTL)
	$(call KCONFIG_ENABLE_OPT,CONFIG_SYSFS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_DEVTMPFS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_TMPFS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_UNIX_DIAG)
	$(call KCONFIG_ENABLE_OPT,CONFIG_PACKET_DIAG)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NAMESPACES)
	$(call KCONFIG_ENABLE_OPT,CONFIG_TIME_NS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_FHANDLE)
endef

$(eval $(cargo-package))
