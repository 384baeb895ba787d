"""Weights of a model: conversion, and what must be edited in a checkpoint for it."""
