# SPDX-License-Identifier: Apache-2.0
"""Verification: is each statement authentic, is each in its place, and does the visible document say the same?"""
