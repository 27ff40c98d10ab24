"""Drivers: the only code that sleeps, waits and cancels. They do what a flow yields and decide nothing."""
