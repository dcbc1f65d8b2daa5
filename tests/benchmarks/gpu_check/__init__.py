"""The GPU check, where there is no GPU: against a stand-in for the driver, and its honest outcome without one."""
