"""The wire: RPyC's protocol on one asyncio loop, with limits, deadlines and reconnection."""
