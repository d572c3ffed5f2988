"""Runners, streamers and doors that are killed, until every event of many worlds is in the log once."""
