"""Examples that run the commands of this project as its users do: `demo` and `improve`."""
