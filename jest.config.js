'use strict';

module.exports = {
  testEnvironment: 'node',
  testMatch: ['<rootDir>/__test__/**/*.test.js'],
  modulePathIgnorePatterns: ['<rootDir>/target/'],
  transform: {},
  testTimeout: 30_000,
  maxWorkers: 2,
};
