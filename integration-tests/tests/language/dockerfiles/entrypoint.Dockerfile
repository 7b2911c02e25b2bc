FROM scratch AS base
ENTRYPOINT ["base"]
CMD ["base-arg"]
FROM base AS own
# The arguments of the base were for another program.
ENTRYPOINT ["own"]
