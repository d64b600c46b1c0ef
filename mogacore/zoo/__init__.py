"""Reproduction of the paper: plans, tests of published weights, tables, and a small comparison."""
