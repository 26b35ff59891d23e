include $(sort $(wildcard $(BR2_EXTERNAL_RCSNAP_PATH)/package/*/*.mk))
